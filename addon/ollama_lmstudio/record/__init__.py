"""What is kept with a flow: both sides of its exchange, their numbers, and answers from a recording."""
