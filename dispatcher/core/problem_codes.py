"""The codes of problems, each with what is wrong and how to fix it. Names in braces are filled with values."""

from collections.abc import Mapping
from typing import Final

SENTENCES: Final[Mapping[str, tuple[str, str]]] = {
    # Any field
    "required": ("This field is required.", "Provide a value."),
    "unknown_field": ("This field does not exist.", "Remove it, or check its spelling."),
    "read_only": ("This field is read only.", "Remove it from the request."),
    "duplicate": ("This name is given more than once.", "Provide it once."),
    "conflicting": ("This field cannot be combined with {other}.", "Provide only one of them."),
    "not_a_string": ("The value is not a string.", "Use a string."),
    "not_a_boolean": ("The value is not a boolean.", "Use true or false."),
    "not_a_number": ("The value is not a number.", "Use a number."),
    "not_an_integer": ("The value is not a whole number.", "Use a whole number."),
    "not_an_object": ("The value is not an object.", "Use an object."),
    "not_a_list": ("The value is not a list.", "Use a list."),
    "not_one_of": ("{value} is not a valid value.", "Use one of: {allowed}."),
    "invalid_format": ("The value does not have the right form.", "Use the form {pattern}."),
    "out_of_range": ("{value} is out of range.", "Use a number from {minimum} to {maximum}."),
    "too_short": ("The value is too short.", "Use at least {minimum} characters."),
    "too_long": ("The value is too long.", "Use at most {maximum} characters."),
    "too_few_items": ("The list is too short.", "Provide at least {minimum} entries."),
    "too_many_items": ("There are too many entries.", "Provide at most {maximum} entries."),
    "too_many_bytes": ("The value is too large.", "Use at most {maximum} bytes."),
    "limit_exceeded": (
        "The size is {count}, but {setting} allows {maximum}.",
        "Reduce it to {maximum} or less, or raise {setting}.",
    ),
    "invalid_text": (
        "The text contains a NUL character or a lone surrogate.",
        "Remove that character.",
    ),
    "unprintable": (
        "The value contains control characters, or begins or ends with a space.",
        "Remove those characters.",
    ),
    "invalid_value": ("The value is not valid: {detail}.", "Correct it."),
    # Times
    "invalid_time": (
        "The value is not an RFC 3339 time with a time zone.",
        "Use a time such as 2026-05-29T14:32:11Z.",
    ),
    "impossible_time": (
        "There is no such time.",
        "Use an existing time in the years 1 to 9999.",
    ),
    "time_not_in_future": ("The time is not in the future.", "Use a later time."),
    "postponed_too_far": (
        "The time is too far in the future.",
        "Use a time within the next {days} days.",
    ),
    "time_too_late": ("The time is too late.", "Use a time before 9999-12-31."),
    # Lists
    "invalid_cursor": (
        "The value is not a cursor of an earlier page.",
        "Use the next_cursor of that page unchanged.",
    ),
    "cursor_mismatch": (
        "The cursor belongs to a list with another filter.",
        "Start again from the first page.",
    ),
    "invalid_label_pair": ("The value is not a label.", "Use name=value."),
    # Names
    "invalid_tenant": (
        "{value} is not a valid tenant name.",
        "Use 1 to 64 lower-case letters, digits, hyphens and underscores.",
    ),
    # Event types and labels
    "no_event_type": (
        "The list has no event type.",
        "Provide at least one event type, a prefix such as order.*, or *.",
    ),
    "invalid_event_type": (
        "{value} is not a valid event type.",
        "Use lower-case words joined by dots, for example order.created.",
    ),
    "invalid_subscription": (
        "{value} is not a valid event type.",
        "Use lower-case words joined by dots, for example order.created, a prefix such as order.*, or *.",
    ),
    "reserved_event_type": (
        "Event types that begin with dispatcher. are reserved.",
        "Use another event type.",
    ),
    "invalid_label_name": (
        "{value} is not a valid label name.",
        "Use 1 to {maximum} lower-case letters, digits, dots, hyphens and underscores.",
    ),
    "invalid_filter": (
        "The expression is not valid CEL: {detail}.",
        'Use an expression such as data.total > 1000 && labels.region == "th".',
    ),
    "schema_mismatch": (
        "The value does not fit the schema of the event type: {detail}.",
        "Correct the data. The page of the event type has its schema.",
    ),
    "filter_too_complex": (
        "The expression may take too long: {detail}.",
        "Simplify it; docs/reference/api.md lists the limits of filters.",
    ),
    "unknown_filter_name": (
        "The expression reads {value}, which events do not have.",
        "Use {allowed}, and the functions of CEL.",
    ),
    "filter_not_boolean": (
        "The result of the expression is not true or false.",
        "Compare it with a value, as in data.total > 1000.",
    ),
    "invalid_label_filter": (
        "The value is neither a string nor a list of strings.",
        "Use a string, or a list of the accepted strings.",
    ),
    # URLs
    "url_characters": (
        "The URL contains white space, a control character or a backslash.",
        "Remove or percent-encode that character.",
    ),
    "url_fragment": ("The URL contains a fragment (#).", "Remove the fragment."),
    "url_relative": (
        "The URL is not absolute.",
        "Use a complete URL such as https://example.com/path.",
    ),
    "url_scheme": ("The scheme of the URL is not supported.", "Use https://."),
    "url_profile_https": (
        "The profile allows https only, whatever the settings allow.",
        "Use https://.",
    ),
    "url_http_off": (
        "The settings do not allow http.",
        "Use https://, or set egress.allow_http to true.",
    ),
    "url_credentials": (
        "The URL contains a user name or password.",
        "Remove it, and send the credential in a header.",
    ),
    "url_port": (
        "The port of the URL is not valid.",
        "Use a port from 1 to 65535, or leave the colon out.",
    ),
    "url_port_denied": (
        "The settings do not allow port {port}.",
        "Use another port, or add it to egress.allow_ports.",
    ),
    "url_address_denied": (
        "The settings deny this address ({rule}).",
        "Use another address, or add its network to egress.allow_networks.",
    ),
    "url_no_host": ("The URL has no host.", "Use a complete URL such as https://example.com/path."),
    "url_host": (
        "The host of the URL is not valid.",
        "Use letters, digits, hyphens and dots.",
    ),
    "url_international_host": (
        "The host of the URL is not a valid internationalized name.",
        "Check its spelling.",
    ),
    "url_ipv4": (
        "The numeric host is not written as four decimal numbers.",
        "Use the form 192.0.2.1.",
    ),
    "url_ipv6": (
        "The IPv6 host is not in brackets, or has a zone.",
        "Use the form [2001:db8::1].",
    ),
    "url_percent": (
        "A % in the URL is not followed by two hexadecimal digits.",
        "Write a literal % as %25.",
    ),
    "url_nul": ("The URL contains %00.", "Remove it."),
    # Test events
    "event_type_required": (
        "The profile {profile} has no test event of its own.",
        "Provide an event type.",
    ),
    "sample_missing": ("The catalogue has no sample of {event_type}.", "Provide data."),
    # Headers and certificates
    "too_many_headers": ("There are {count} headers.", "Use at most {maximum} headers."),
    "headers_too_large": (
        "The headers take {count} bytes.",
        "Use at most {maximum} bytes in total.",
    ),
    "invalid_header_name": (
        "The name is not a valid header name.",
        "Use letters, digits and hyphens.",
    ),
    "duplicate_header": ("The header occurs more than once.", "Provide it once."),
    "header_control_character": (
        "The header's value contains a control character.",
        "Remove that character.",
    ),
    "header_not_latin_1": (
        "The header's value contains a character outside Latin-1.",
        "Encode the value, for example as base64.",
    ),
    "header_spaces": (
        "The header's value begins or ends with a space.",
        "Remove the space.",
    ),
    "reserved_header": ("The dispatcher sets this header itself.", "Use another header."),
    "invalid_certificate": (
        "The value does not hold certificates in PEM form.",
        "Paste the certificates, from BEGIN CERTIFICATE to END CERTIFICATE.",
    ),
    # Secrets
    "no_target": (
        "The notification has no target.",
        "Provide either to_endpoint_id or email.",
    ),
    "target_not_found": (
        "There is no endpoint {value} that this notification could send to.",
        "Use the id of an endpoint of the notification's tenant.",
    ),
    "recipient_required": (
        "The profile {profile} of the target sends to a recipient.",
        "Provide recipient, for example a LINE user or group id.",
    ),
    "invalid_email": (
        "{value} is not an e-mail address.",
        "Use one address such as ops@example.com.",
    ),
    "smtp_not_configured": (
        "This deployment sends no e-mail.",
        "Set smtp.host and smtp.sender, or use an endpoint as the target.",
    ),
    "invalid_problem_type": (
        "{value} is not a problem that can be reported.",
        "Use one of: {allowed}.",
    ),
    "notification_not_found": (
        "There is no notification {value}.",
        "Check the id; `dispatcher notification list` shows all.",
    ),
    "too_many_notifications": (
        "There are {maximum} notifications, the maximum.",
        "Delete one that is not needed.",
    ),
    "secret_issued": (
        "Under the profile {profile}, the receiving service issues the secret.",
        "Provide the token or the webhook URL that the service shows.",
    ),
    "secret_issued_characters": (
        "The secret has characters that a token or a path cannot have.",
        "Use 8 to 2048 visible ASCII characters.",
    ),
    "secret_is_a_path": (
        "Under the profile {profile}, the secret is the path of the webhook's URL.",
        "Use the part of the URL from the slash after the host.",
    ),
    "url_holds_secret": (
        "Under the profile {profile}, the path of the URL is the secret.",
        "Use scheme and host only, and provide the path as the secret.",
    ),
    "secret_required": (
        "The profile {profile} always signs its requests.",
        "Provide a secret, or leave the field out to have one generated.",
    ),
    "secret_characters": (
        "The secret is not 8 to 256 printable ASCII characters.",
        "Use another secret, or leave the field out to have one generated.",
    ),
    "secret_prefix": (
        "The secret has the wrong prefix.",
        "Under the profile {profile}, use a secret that begins with {prefix}.",
    ),
    "secret_size": (
        "The secret has {count} bytes.",
        "Under the profile {profile}, use the base64 of {minimum} to {maximum} bytes.",
    ),
    "secret_base64": (
        "The part of the secret after its prefix is not base64.",
        "Encode it as base64.",
    ),
    "secret_ed25519": (
        "The ed25519 secret has the wrong size.",
        "Use the base64 of a 32-byte seed or of a 64-byte key pair.",
    ),
    "secret_key_pair": (
        "The halves of the ed25519 key pair do not belong together.",
        "Generate the key pair again.",
    ),
    "invalid_data_path": (
        "{value} is not a path of data.",
        "Use names joined by dots, such as customer.email or *.email; a dot within a name is written \\.",
    ),
    "mask_not_possible": (
        "The profile {profile} does not send the event's data, so there is nothing to leave out.",
        "Remove include and exclude, or use a profile that sends the data, such as wms or standard.",
    ),
    "client_characters": (
        "The value is not 1 to 512 printable ASCII characters.",
        "Copy it again from the server that issues it.",
    ),
    "masked_value": (
        "The value is the masked one, not the secret.",
        "Remove this field to keep the secret, or provide the secret itself.",
    ),
    "oauth_not_possible": (
        "The profile {profile} sends an Authorization header of its own.",
        "Remove the OAuth settings, or use another profile.",
    ),
    "invalid_private_key": (
        "The value is not a private key in PEM form.",
        "Provide the key of the client certificate, which begins with -----BEGIN PRIVATE KEY-----.",
    ),
    "client_key_encrypted": (
        "The private key is encrypted with a passphrase.",
        "Decrypt it first, for example with openssl pkey; the dispatcher encrypts it in the database.",
    ),
    "client_key_of_another": (
        "The private key does not belong to the client certificate.",
        "Provide the certificate and the key that were issued together.",
    ),
    "client_certificate_without_tls": (
        "A client certificate is presented over https only.",
        "Use an https URL, or remove the client certificate.",
    ),
    "no_preview": (
        "A request of the profile {profile} cannot be shown without a secret that its receiver issues.",
        "Create the endpoint with the secret and send a test event.",
    ),
    "endpoint_of_keys": (
        "Keys are published by endpoint, and this is the id of none.",
        "Add ?endpoint=ID, where ID is that of the webhook, such as ep_01kat9zma1e4gbryhh3m9dq2yw.",
    ),
    "key_type_not_possible": (
        "The profile {profile} has no ed25519 signatures.",
        "Use a profile that has them, such as standard, or the key type hmac.",
    ),
    "also_sign_not_possible": (
        "The profile {profile} does not sign its requests.",
        "Remove also_sign, or create the endpoint under a profile that signs.",
    ),
    "also_sign_without_signature": (
        "The profile {profile} does not sign its requests.",
        "Use a profile that signs, such as standard.",
    ),
    "also_sign_collision": (
        "The profiles {other} and {profile} both have the header {header}.",
        "Keep one of the two profiles.",
    ),
    "also_sign_without_secret": (
        "The endpoint has no secret to sign with.",
        "Remove also_sign, or create an endpoint with a secret.",
    ),
    "also_sign_shared_secret": (
        "The profile {profile} needs a shared secret, and the endpoint has an ed25519 key.",
        "Remove the profile from also_sign, or use a shared secret.",
    ),
    "also_sign_secret_size": (
        "The secret has {count} bytes, which the profile {profile} in also_sign cannot use.",
        "Use a secret of {minimum} to {maximum} characters, or remove the profile from also_sign.",
    ),
    "secret_rotation_only": (
        "A secret changes only by rotation.",
        "Rotate the endpoint's secret.",
    ),
    "secret_in_use": (
        "The endpoint already has this secret.",
        "Use another secret, or leave the field out to have one generated.",
    ),
    "secret_reference": (
        "The declaration holds a secret itself, not a reference to it.",
        "Use env:NAME, file:PATH or unsigned.",
    ),
    "secret_unavailable": ("The secret cannot be read: {detail}.", "Correct the reference."),
    "unsigned_not_possible": (
        "The endpoint has a secret, and an endpoint never becomes unsigned.",
        "Create an unsigned endpoint under another name.",
    ),
    "activate_not_possible": (
        "Under the profile {profile}, the old and the new secret sign together.",
        "Remove this field, or set it to true.",
    ),
    "overlap_not_possible": (
        "Under the profile {profile}, a request has room for one signature.",
        "Remove this field.",
    ),
    # Conflicts, and resources that do not exist
    "fixed_field": (
        "The {name} of an endpoint never changes.",
        "Create a second endpoint.",
    ),
    "name_in_use": ("The tenant already has an endpoint named {value}.", "Use another name."),
    "token_name_in_use": ("The tenant already has a token named {value}.", "Use another name."),
    "notification_name_in_use": (
        "The tenant already has a notification named {value}.",
        "Use another name.",
    ),
    "ambiguous_name": (
        "Several tenants use the name {value}: {candidates}.",
        "Use an id, or name the tenant.",
    ),
    "name_not_found": ("There is no {kind} {value}.", "Check the name or the id."),
    "similar_name": ("There is no {kind} {value}.", "Did you mean {similar}?"),
    "endpoint_paused": (
        "The endpoint is paused, so nothing is sent to it.",
        "Resume the endpoint: its waiting deliveries are then sent.",
    ),
    "endpoint_disabled": (
        "The endpoint is disabled and receives nothing.",
        "Resume the endpoint first.",
    ),
    "too_many_endpoints_of_tenant": (
        "The tenant {tenant} has {maximum} endpoints, the most that limits.endpoints_per_tenant allows.",
        "Delete an endpoint, or raise the setting.",
    ),
    "job_endpoint_deleted": (
        "The endpoint is deleted, so there is nowhere to send to.",
        "Replay to another endpoint.",
    ),
    "endpoint_ambiguous": (
        "Several tenants have an endpoint named {value}.",
        "Use the id of the endpoint, or name the tenant.",
    ),
    "job_not_found": ("There is no job {value}.", "Check the id."),
    "job_ended": ("The job has ended: {state}.", "Create another job."),
    "job_not_running": ("The job is {state}, not running.", "Only pause a job that is running."),
    "job_not_paused": ("The job is {state}, not paused.", "Only resume a job that is paused."),
    "too_many_jobs": (
        "{maximum} jobs are going on, which is the most.",
        "Wait until one has ended, or cancel one.",
    ),
    "version_changed": (
        "The endpoint has changed; its version is {version}.",
        "Read it again, and repeat the change.",
    ),
    "endpoint_not_found": ("There is no endpoint {value}.", "Check the id."),
    "token_not_found": ("There is no token {value}.", "Check the id."),
    "event_not_found": (
        "There is no event {value}.",
        "Check the id.",
    ),
    "delivery_not_found": (
        "There is no delivery {value}.",
        "Check the id.",
    ),
    "attempt_not_found": (
        "The delivery has no attempt {value}.",
        "Use the number of one of its attempts.",
    ),
    "id_not_found": (
        "Nothing has this id.",
        "Check the id.",
    ),
    "all_tenants_only": (
        "Only a token of all tenants can do this.",
        "Use a token without a tenant.",
    ),
    "tenant_not_found": ("There is no tenant {value}.", "Use the tenant of the token."),
    "role_too_low": (
        "This action requires the role {required}, and the role of this token is {role}.",
        "Use a token with the role {required}.",
    ),
    "too_many_old_secrets": (
        "{count} old secrets still sign.",
        "Wait until {until}, or rotate with an overlap of 0 seconds.",
    ),
    "too_many_searches": (
        "Too many searches are waiting.",
        "Try again in a few seconds.",
    ),
    "no_staged_secret": ("No secret is staged.", "Rotate the secret first."),
    "profile_not_configured": (
        "The profile {profile} of this endpoint is no longer configured.",
        "Restore its file in profiles/.",
    ),
    # Declarations
    "profile_fixed": (
        "The profile of an existing endpoint never changes from {profile}.",
        "Use that profile, or another endpoint name.",
    ),
    "duplicate_endpoint": (
        "The declaration names this endpoint twice, first as {other}.",
        "Use names that are unique within the tenant.",
    ),
    "too_many_endpoints": (
        "There are more than {maximum} endpoints.",
        "Select a tenant, or change endpoints one by one.",
    ),
    "invalid_file": ("The file is not valid: {detail}.", "Correct the file."),
    # Events and deliveries
    "not_a_json_object": ("The value is {kind}, not a JSON object.", "Use a JSON object."),
    "reserved_id": (
        "{value} has the form of a generated id.",
        "Leave the id out, or use another form.",
    ),
    "time_too_early": (
        "The time is before 1970, or has no time zone.",
        "Use a time in the years 1970 to 9999, such as 2026-05-29T14:32:11Z.",
    ),
    "invalid_request_id": (
        "{value} is not a request id.",
        "Use the 16 hexadecimal digits of the request, with or without its prefix.",
    ),
    "not_encodable": ("The event cannot be encoded: {detail}.", "Change the event."),
    "test_not_resendable": (
        "A test event has one attempt.",
        "Send another test event.",
    ),
    "replay_only": (
        "A resend goes to the endpoint of each delivery.",
        "Remove this field, or use the kind replay.",
    ),
    "one_of_two": ("The request names an id and labels, or neither.", "Provide one of the two."),
    "delivery_without_body": (
        "The delivery has no body ({reason}), so there is nothing to send.",
        "Publish the event again.",
    ),
    "event_erased": (
        "The data of the event was erased, so there is nothing to send.",
        "Publish the event again.",
    ),
    "endpoint_deleted": (
        "The endpoint is deleted, so the delivery has no target.",
        "Create an endpoint, and publish the event again.",
    ),
    "delivery_ended": (
        "The delivery has already ended: {state}.",
        "Cancel only deliveries that are waiting.",
    ),
    "event_id_in_use": (
        "The id {value} belongs to an event {owner}.",
        "Use another id.",
    ),
    "event_id_locked": (
        "Another transaction is publishing the id {value}.",
        "Publish the event again.",
    ),
    "event_rejected": (
        "Postgres rejects this event.",
        "Check its fields. If they are valid, report it.",
    ),
    "event_not_quarantined": (
        "The event {value} is not quarantined.",
        "Release only quarantined events.",
    ),
    "endpoint_unusable": (
        "Nothing can be sent to this endpoint: {detail}.",
        "Correct the configuration of the endpoint.",
    ),
    "profile_without_signature": (
        "Requests of the profile {profile} carry no signature.",
        "Diagnose a delivery of an endpoint whose profile signs.",
    ),
    "no_request_to_diagnose": (
        "This delivery has no attempt or no body, so its headers are not known.",
        "Give the headers as the receiver got them.",
    ),
    "not_a_header": (
        "This line is not a header.",
        "Write each header on a line of its own, as `Name: value`.",
    ),
    "secret_missing": (
        "The endpoint has no secret, and the profile {profile} always signs.",
        "Rotate the secret.",
    ),
    "replicas_without_key": (
        "Running replicas do not have the key {key}: {replicas}.",
        "Add it to DISPATCHER_SECRET_KEYS of each replica, and restart it.",
    ),
    # Requests
    "too_many_requests_of_address": (
        "This address sends too many requests.",
        "Wait for the time in Retry-After.",
    ),
    "too_many_requests_of_token": (
        "This token sends too many requests.",
        "Wait for the time in Retry-After.",
    ),
    "event_type_not_found": (
        "The catalogue has no event type {value}.",
        "Use a name from the list of event types.",
    ),
    "endpoint_not_pulled": (
        "The deliveries of this endpoint are pushed to its URL.",
        "Set delivery to pull to fetch them.",
    ),
    "endpoint_is_pulled": (
        "The receiver of this endpoint fetches its deliveries, so no request can be sent to it.",
        "Publish an event, and fetch it with `dispatcher poll`.",
    ),
    "too_many_polls": (
        "Too many polls wait for deliveries.",
        "Use at most {maximum} polls at a time for one endpoint.",
    ),
    "token_for_one_endpoint": (
        "This token may only fetch and settle the deliveries of its endpoint.",
        "Use a token without an endpoint.",
    ),
    "session_not_found": (
        "There is no session {value}.",
        "Use an id from the list of sessions. A session that has ended is not listed.",
    ),
    "too_many_sign_ins": (
        "Too many sign-ins were started or completed from this address.",
        "Wait, then start again.",
    ),
    "too_many_wrong_links": (
        "This address used too many sign-in links that are not valid.",
        "Wait, then create a new link with `dispatcher open`.",
    ),
    "too_many_wrong_portal_links": (
        "This address used too many portal links that are not valid.",
        "Wait, then open a new link.",
    ),
    "field_needs_admin": (
        "Only an administrator can set this field.",
        "Leave it out.",
    ),
    "portal_link_not_found": (
        "There is no portal link {value}.",
        "Use an id from the list of portal links. A link is deleted two days after its expiry.",
    ),
    "invalid_color": (
        "{value} is not a color.",
        "Use # and six hexadecimal digits, for example #0f7b6c.",
    ),
    "invalid_origin": (
        "{value} is not an origin.",
        "Use https:// and a host in lower case, for example https://app.example.com; http on this machine only.",
    ),
    "origin_not_allowed": (
        "{value} is not allowed to embed the portal.",
        "Add it to the setting portal.frame_ancestors, or use an origin of that list.",
    ),
    "too_many_events_of_token": (
        "This token publishes too many events.",
        "Wait for the time in Retry-After.",
    ),
    "too_many_wrong_tokens": (
        "This address sent too many wrong tokens.",
        "Wait, then use a valid token.",
    ),
    "too_many_sends": (
        "Too many test events and resends were requested for one endpoint.",
        "Send {burst} at once, then one per second.",
    ),
    "too_many_viewers": (
        "The live view already has {maximum} viewers.",
        "Reload the list instead, or try again later.",
    ),
    "too_many_exports": (
        "{maximum} exports are running already.",
        "Wait until one has ended, or narrow the filter.",
    ),
    "body_not_allowed": ("This route accepts no body.", "Send the request without a body."),
    "invalid_id": (
        "{value} is not a valid id.",
        "Use 1 to 64 letters, digits, hyphens and underscores.",
    ),
    "too_many_matches": (
        "More than {maximum} deliveries match.",
        "Narrow the filter, for example to one endpoint or to a range of due times.",
    ),
    "empty_filter": (
        "The filter is empty, so it would select every delivery.",
        "Provide at least one condition.",
    ),
}
"""What each code states, and the fix; names in braces are filled with values."""
