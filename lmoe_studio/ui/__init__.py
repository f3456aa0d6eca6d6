"""The browser interface: the only part that knows Gradio. Start it with `ui.app.launch`."""
