// Package operations follows docs/operations.md word for word: what stands in its blocks is run, in namespaces of
// its own, with the real programs.
package operations
