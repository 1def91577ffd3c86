"""The experiments of Golden et al., "Generative AI Beyond LLMs" (ISPASS 2024, arXiv 2312.14385), on a simulated device."""
