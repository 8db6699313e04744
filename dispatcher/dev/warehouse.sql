-- The tables of the simulated warehouse system of `dispatcher demo`: an application's own, in its own schema.
CREATE SCHEMA IF NOT EXISTS demo_warehouse;
CREATE TABLE IF NOT EXISTS demo_warehouse.orders (
    id          text        NOT NULL PRIMARY KEY,
    customer    text        NOT NULL,
    status      text        NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS demo_warehouse.stock (
    sku         text        NOT NULL PRIMARY KEY,
    on_hand     integer     NOT NULL CHECK (on_hand >= 0)
);
