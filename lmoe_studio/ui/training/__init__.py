"""What the Train tab knows: the form's texts and options, and how jobs go; nothing of Gradio."""
