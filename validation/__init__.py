"""The simulator beside reality: measurements, parameters fitted to them, predictions judged by them, reports, the study."""
