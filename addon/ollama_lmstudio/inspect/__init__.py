"""What the user sees of an exchange: contentviews, comments, commands, exports. All of it is read from its Record."""
