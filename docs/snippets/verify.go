package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Verify says whether the request is genuine. header is r.Header.Get; body is what io.ReadAll(r.Body)
// gives, before anything parses it.
func Verify(profile string, header func(string) string, body []byte, secrets []string, now time.Time) bool {
	name := map[string]string{"wms": "X-WMS-Signature", "humansoft": "X-Webhook-Signature", "standard": "webhook-signature"}[profile]
	received := []string{header(name)}
	content := body
	if profile != "wms" {
		timestamp := header("X-Webhook-Timestamp")
		if profile == "standard" {
			timestamp = header("webhook-timestamp")
			received = strings.Split(received[0], " ")
		}
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		if err != nil || now.Unix()-seconds > 300 || seconds-now.Unix() > 300 {
			return false // too old, or in the future
		}
		content = append([]byte(timestamp+"."), content...)
		if profile == "standard" {
			content = append([]byte(header("webhook-id")+"."), content...)
		}
	}
	for _, secret := range secrets {
		key := []byte(secret)
		if profile == "standard" {
			key, _ = base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		}
		if len(key) == 0 {
			continue // anybody can sign with an empty key
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(content)
		expected := "sha256=" + hex.EncodeToString(mac.Sum(nil))
		if profile == "standard" {
			expected = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		}
		for _, signature := range received {
			if hmac.Equal([]byte(expected), []byte(signature)) {
				return true
			}
		}
	}
	return false
}
