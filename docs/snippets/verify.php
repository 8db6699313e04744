<?php
// PHP 8. $headers with lower-case names: array_change_key_case(getallheaders()).
// $body is the raw body: file_get_contents('php://input').
function verify(string $profile, array $headers, string $body, array $secrets, ?int $now = null): bool
{
    $standard = $profile === 'standard';
    $name = ['wms' => 'x-wms-signature', 'humansoft' => 'x-webhook-signature', 'standard' => 'webhook-signature'][$profile];
    $received = $headers[$name] ?? '';
    $content = $body;
    if ($profile !== 'wms') {
        $timestamp = $headers[$standard ? 'webhook-timestamp' : 'x-webhook-timestamp'] ?? '';
        if (!preg_match('/^[0-9]{1,12}\z/', $timestamp) || abs(($now ?? time()) - (int) $timestamp) > 300) {
            return false; // too old, or in the future
        }
        $content = "$timestamp.$content";
        if ($standard) {
            $content = ($headers['webhook-id'] ?? '') . ".$content";
        }
    }
    $valid = false;
    foreach (array_filter($secrets) as $secret) { // anybody can sign with an empty one
        if ($standard) {
            $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
            $expected = 'v1,' . base64_encode(hash_hmac('sha256', $content, $key, true));
        } else {
            $expected = 'sha256=' . hash_hmac('sha256', $content, $secret);
        }
        foreach ($standard ? explode(' ', $received) : [$received] as $signature) {
            $valid = hash_equals($expected, $signature) || $valid;
        }
    }
    return $valid;
}
