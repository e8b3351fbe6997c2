"""LM Studio's wire: its model list, its names, its answers and its errors."""
