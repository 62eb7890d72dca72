package agent

import (
	"slices"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TestDeclaredAddresses: what the operator declares is said, and nothing is added to it.
func TestDeclaredAddresses(t *testing.T) {
	declared := []string{"198.51.100.7", "2001:db8::7"}
	for _, c := range []struct {
		what        string
		given, want []string
	}{
		{"declared ones alone", declared, declared},
		{"else those that the host sends from", nil, texts(probe.PublicAddresses())},
	} {
		a, err := New(Options{DataDir: t.TempDir(), ID: "a", Env: &probe.Env{}, Vantage: &pb.Vantage{Region: "eu", Addresses: c.given}})
		if err != nil {
			t.Fatal(err)
		}
		if got := a.vantage(0).GetAddresses(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if err := a.spool.Close(); err != nil {
			t.Error(err)
		}
	}
}

func texts[T interface{ String() string }](all []T) (out []string) {
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}
