"""What a person sees of an exchange: contentviews, comments, commands. Whatever is shown is read from a Record."""
