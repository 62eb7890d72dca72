// Package lab holds whole-system tests: the three real binaries in a world of network namespaces
// whose faults are made by the kernel and by real servers. It needs root; see README.md.
package lab
