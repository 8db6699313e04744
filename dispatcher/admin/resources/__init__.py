"""Resources: each defined once, with its fields, their rules and bounds, and what people read of them.

A field's definition states its type and bounds, its command-line option (`Option`) and its form
control (`Control`). The API validates with these models, OpenAPI, the commands, the console's forms,
declarations and the tables of `docs/reference/api.md` are made of them. Nothing here reads a database.
"""
