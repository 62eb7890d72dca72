//go:build !unix

package probe

// errnoName returns "": error numbers have no names here.
func errnoName(error) string { return "" }
