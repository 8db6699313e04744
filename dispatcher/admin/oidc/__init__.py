"""Single sign-on to the console through an OpenID provider: the authorisation code flow with PKCE.

    browser ──▶ /sign-in/oidc ──▶ provider ──▶ /sign-in/callback ──▶ a session
                   │ cookie with the secret       │ state, code
                   └──────────────────────────────┘ must match

* `flow` derives state, nonce and code verifier from one secret in a cookie, and checks them at the return.
* `provider` requests the provider's metadata, keys and tokens, within bounds.
* `id_token` verifies an ID token and is pure.
* `rules` turns groups into one role and one tenant.
* `sign_on` puts them together, and opens the session.

Invariants:

* A browser that returns must hold the cookie that it left with. Another person's response of the provider
  (login CSRF) has another state and is refused.
* A state opens one session, on any replica: it is recorded in the transaction that opens the session.
* An ID token is accepted only if it is signed by a key of the configured issuer with RS256, ES256 or EdDSA,
  is meant for this client (`aud`, `azp`), answers this request (`nonce`), and is neither expired nor older
  than the flow. The algorithm of the header is never a choice of the token: the key decides.
* The rights of a session are those of the first rule of `oidc.roles` whose group the person has. Rules are
  never combined, and without a rule there is no session.
* Nothing of the provider is trusted with time or memory: every request has a time limit and a size limit, and
  the number of sign-ins by address is limited.

**Crash**: a sign-in that was not completed is started again by the person. **Slow or absent provider**: the
page reports it within `provider.SECONDS_MAX`; tokens, links and existing sessions are not affected. **Slow
or absent Postgres**: no session can be opened, for any source.
"""
