import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Java 17. Header names in lower case; the body's bytes as received, before anything parses them. */
final class Verify {
    static boolean verify(String profile, Map<String, String> headers, byte[] body, List<String> secrets, long now)
            throws GeneralSecurityException {
        boolean standard = profile.equals("standard");
        String name = Map.of("wms", "x-wms-signature", "humansoft", "x-webhook-signature",
                "standard", "webhook-signature").get(profile);
        String received = headers.getOrDefault(name, "");
        String lead = "";
        if (!profile.equals("wms")) {
            String timestamp = headers.getOrDefault(standard ? "webhook-timestamp" : "x-webhook-timestamp", "");
            if (!timestamp.matches("[0-9]{1,12}") || Math.abs(now - Long.parseLong(timestamp)) > 300) {
                return false; // too old, or in the future
            }
            lead = (standard ? headers.getOrDefault("webhook-id", "") + "." : "") + timestamp + ".";
        }
        boolean valid = false;
        for (String secret : secrets) {
            byte[] key = standard
                    ? Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""))
                    : secret.getBytes(StandardCharsets.UTF_8);
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(key, "HmacSHA256"));
            mac.update(lead.getBytes(StandardCharsets.UTF_8));
            byte[] digest = mac.doFinal(body);
            String expected = standard
                    ? "v1," + Base64.getEncoder().encodeToString(digest)
                    : "sha256=" + HexFormat.of().formatHex(digest);
            for (String signature : standard ? received.split(" ") : new String[] {received}) {
                valid |= MessageDigest.isEqual(
                        expected.getBytes(StandardCharsets.UTF_8), signature.getBytes(StandardCharsets.UTF_8));
            }
        }
        return valid;
    }
}
