#!/bin/sh
# Prints the signature that a captured request should have. For looking into a problem, not for a
# receiver: the secret is on openssl's command line, and nothing is compared in constant time.
#   signature.sh wms       SECRET BODY_FILE
#   signature.sh humansoft SECRET BODY_FILE TIMESTAMP
#   signature.sh standard  SECRET BODY_FILE TIMESTAMP ID
set -eu
profile=$1 secret=$2 body=$3 timestamp=${4-} id=${5-}
hex() { od -An -v -tx1 | tr -d ' \n'; }
case $profile in
wms) cat "$body" ;;
humansoft) printf '%s.' "$timestamp" && cat "$body" ;;
standard) printf '%s.%s.' "$id" "$timestamp" && cat "$body" ;;
esac | case $profile in
standard)
    key=$(printf '%s' "${secret#whsec_}" | openssl base64 -d -A | hex)
    printf 'v1,%s\n' "$(openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)"
    ;;
*)
    key=$(printf '%s' "$secret" | hex)
    printf 'sha256=%s\n' "$(openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | hex)"
    ;;
esac
