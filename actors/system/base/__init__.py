"""The system base: Thespian actors on an asyncio event loop."""
