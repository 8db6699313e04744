#!/bin/sh
# Boots systemd as PID 1 on a copy-on-write view of this machine's own files, in namespaces of its own.
# Run under: unshare --mount --pid --fork --uts --ipc --net --cgroup. Nothing outside is written to.
# $1: an empty folder; $2: the interpreter's prefix; $3: its packages; $4: the checkout
set -e
ip link set lo up
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in run tmp dev; do mount -t tmpfs tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
rm -rf "$root/etc/dispatcher" "$root/opt" "$root/etc/systemd/system" "$root/var/log/journal"
mkdir -p "$root/etc/systemd/system" "$root/opt/dispatcher/bin"
: >"$root/etc/fstab"
echo 11111111111111111111111111111111 >"$root/etc/machine-id"
for pair in "$2:python" "$3:packages" "$4:checkout"; do
    mkdir "$root/opt/${pair##*:}"
    mount --bind "${pair%:*}" "$root/opt/${pair##*:}"
done
# What `pip install` would make, without a network.
cat >"$root/opt/dispatcher/bin/dispatcher" <<END
#!/bin/sh
export PYTHONHOME=/opt/python LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/checkout:/opt/packages PYTHONDONTWRITEBYTECODE=1
exec /opt/python/bin/python3 -P -m dispatcher "\$@"
END
chmod 755 "$root/opt/dispatcher/bin/dispatcher"
cat >"$root/etc/systemd/system/machine.target" <<END
[Unit]
Description=The machine of a test
Requires=systemd-journald.service
After=systemd-journald.service
END
mkdir "$root/before"
cd "$root"
pivot_root . before
umount -l before
# As systemd-nspawn does: without propagation the credentials never reach their service.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=machine.target --log-target=journal </dev/null
