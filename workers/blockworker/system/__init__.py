"""Services of kernel and process: system calls, names of devices, processes, threads, a cage for QEMU's tools."""
