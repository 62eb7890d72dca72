// Package chaos hurts a whole network of Elsewhere in every way that docs/reliability.md lists, while it
// works, and then checks by its history that nothing acknowledged was lost, counted twice or made up. It needs
// root; see README.md.
package chaos
