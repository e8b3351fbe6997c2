"""What is kept with a flow: both sides of its exchange and their numbers; and responses from recorded flows."""
