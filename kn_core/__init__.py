"""Multi-modal knowledge neurons: with which neurons a model names what it sees, and what it says without them."""
