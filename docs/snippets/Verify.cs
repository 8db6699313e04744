// .NET 8. Header names in lower case; the body's bytes as received, before anything parses them.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Security.Cryptography;
using System.Text;

static class Webhook
{
    public static bool Verify(string profile, IReadOnlyDictionary<string, string> headers, byte[] body,
        IEnumerable<string> secrets, long now)
    {
        string Header(string name) => headers.TryGetValue(name, out var value) ? value : "";
        bool standard = profile == "standard";
        string received = Header(profile switch
        {
            "wms" => "x-wms-signature",
            "humansoft" => "x-webhook-signature",
            _ => "webhook-signature",
        });
        string lead = "";
        if (profile != "wms")
        {
            string timestamp = Header(standard ? "webhook-timestamp" : "x-webhook-timestamp");
            bool number = timestamp.Length is > 0 and <= 12 && timestamp.All(char.IsAsciiDigit);
            if (!number || Math.Abs(now - long.Parse(timestamp)) > 300)
                return false; // too old, or in the future
            lead = (standard ? Header("webhook-id") + "." : "") + timestamp + ".";
        }
        byte[] content = Encoding.UTF8.GetBytes(lead).Concat(body).ToArray();
        bool valid = false;
        foreach (string secret in secrets.Where(one => one.Length > 0)) // anybody can sign with an empty one
        {
            string encoded = secret.StartsWith("whsec_") ? secret[6..] : secret;
            byte[] key = standard ? Convert.FromBase64String(encoded) : Encoding.UTF8.GetBytes(secret);
            byte[] digest = HMACSHA256.HashData(key, content);
            string expected = standard
                ? "v1," + Convert.ToBase64String(digest)
                : "sha256=" + Convert.ToHexString(digest).ToLowerInvariant();
            foreach (string signature in standard ? received.Split(' ') : new[] { received })
                valid |= CryptographicOperations.FixedTimeEquals(
                    Encoding.UTF8.GetBytes(expected), Encoding.UTF8.GetBytes(signature));
        }
        return valid;
    }
}
