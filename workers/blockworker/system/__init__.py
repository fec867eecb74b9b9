"""What the kernel and the process give: system calls, names of devices, processes, threads, a cage for QEMU's tools."""
