"""What a person does with policies: explain them on pictures, compare them, and measure them on labelled ones."""
