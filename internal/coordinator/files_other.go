//go:build !unix

package coordinator

// openFiles is not bounded on this system.
func openFiles() uint64 { return 1 << 20 }
