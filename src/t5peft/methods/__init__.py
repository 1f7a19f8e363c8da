"""The methods, from scratch and by their libraries, and what they count."""
