"""What is measured: LabLink and what stands beside it, and the machines and people of each."""
