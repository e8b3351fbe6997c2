"""LM Studio's wire: its client, its model list, its answers and its errors."""
