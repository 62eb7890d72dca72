package cli

import (
	"strings"
	"testing"
)

func TestCheckAddresses(t *testing.T) {
	for _, c := range []struct {
		says, text string
		good       bool
	}{
		{"one", "127.0.0.1:7700", true},
		{"three, by address and by name", "127.0.0.1:7700,c.example:7700,[::1]:7700", true},
		{"one without a port among others", "127.0.0.1:7700,c.example", false},
		{"nothing after a comma", "127.0.0.1:7700,", false},
		{"more than there may be", strings.Repeat("127.0.0.1:7700,", maxCoordinators) + "127.0.0.1:7700", false},
	} {
		if err := checkAddresses(c.text); (err == nil) != c.good {
			t.Errorf("%s: %v", c.says, err)
		}
	}
}
