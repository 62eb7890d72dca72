//go:build !linux

package main

// fileSystem is not known on this system.
func fileSystem(string) (kind uint32, known bool) { return 0, false }
