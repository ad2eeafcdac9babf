"""The stream: model, durable log, control state, operations, wire protocol, client side."""
