// Node 18 or later. `headers` as in req.headers (lower-case names), `body` a Buffer: the raw bytes.
// In Express: app.post(path, express.raw({ type: '*/*', limit: '2mb' }), (req, res) => ... req.body ...)
const crypto = require('node:crypto');

const hmac = (key, content, encoding) =>
  crypto.createHmac('sha256', key).update(content).digest(encoding);

function verify(profile, headers, body, secrets, now = Date.now() / 1000) {
  let received;
  let lead = '';
  let expected;
  if (profile === 'standard') {
    received = String(headers['webhook-signature'] ?? '').split(' ');
    lead = `${headers['webhook-id']}.${headers['webhook-timestamp']}.`;
    expected = (secret, content) =>
      'v1,' + hmac(Buffer.from(secret.replace(/^whsec_/, ''), 'base64'), content, 'base64');
  } else {
    const name = profile === 'wms' ? 'x-wms-signature' : 'x-webhook-signature';
    received = [String(headers[name] ?? '')];
    if (profile === 'humansoft') lead = `${headers['x-webhook-timestamp']}.`;
    expected = (secret, content) => 'sha256=' + hmac(secret, content, 'hex');
  }
  if (profile !== 'wms') {
    const timestamp = headers[profile === 'standard' ? 'webhook-timestamp' : 'x-webhook-timestamp'];
    if (!/^[0-9]{1,12}$/.test(timestamp ?? '')) return false;
    if (Math.abs(now - Number(timestamp)) > 300) return false; // too old, or in the future
  }
  const content = Buffer.concat([Buffer.from(lead), body]);
  // An empty secret counts for nothing: anybody can sign with it.
  return secrets.filter(Boolean).some((secret) =>
    received.some((signature) => {
      const ours = Buffer.from(expected(secret, content));
      const theirs = Buffer.from(signature);
      return ours.length === theirs.length && crypto.timingSafeEqual(ours, theirs);
    })
  );
}

module.exports = { verify };
