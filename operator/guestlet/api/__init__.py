"""The API that users see, as pydantic models: pure values, no effects."""
