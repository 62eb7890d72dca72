package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadCommandLines(t *testing.T) {
	program := filepath.Join(t.TempDir(), "elsewhere-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	good := []string{"--insecure", "--coordinator", "127.0.0.1:1", "--data-dir", t.TempDir()}
	for _, c := range []struct {
		what string
		args []string
		env  string
		says string
	}{
		{"nothing", nil, "", "--coordinator"},
		{"an unknown flag", append(good, "--frobnicate"), "", "--frobnicate"},
		{"an argument", append(good, "now"), "", "now"},
		{"no data directory", []string{"--insecure", "--coordinator", "127.0.0.1:1"}, "", "--data-dir"},
		{"neither a token nor an identity", good[1:], "", "--join"},
		{"a token without TLS", append(good, "--join", "ewj1_x"), "", "--insecure"},
		{"a token that is none", append(good[1:], "--join", "secret"), "", "not a token"},
		{"a file of a token that is not there", append(good[1:], "--join", "@/nonexistent/token"), "", "--join: /nonexistent/token: "},
		{"a coordinator without a port", append(good, "--coordinator", "host"), "", "host"},
		{"a region with a capital", append(good, "--region", "EU"), "", "--region"},
		{"an id of 64 bytes", append(good, "--id", strings.Repeat("a", 64)), "", "--id"},
		{"a country of three letters", append(good, "--country", "GER"), "", "--country"},
		{"an AS that is no number", append(good, "--asn", "AS1"), "", "--asn"},
		{"a label without a value", append(good, "--label", "edge"), "", "edge"},
		{"an address that is a name", append(good, "--address", "agent.example"), "", "--address"},
		{"an address with a zone", append(good, "--address", "fe80::1%eth0"), "", "--address"},
		{"17 addresses", append(good, strings.Fields(strings.Repeat("--address 192.0.2.1 ", 17))...), "", "--address"},
		{"a resolver that is a name", append(good, "--resolver", "dns.example"), "", "--resolver"},
		{"a root server that is a name", append(good, "--root-server", "a.root.example"), "", "--root-server"},
		{"a control without a port", append(good, "--control", "one.example"), "", "--control"},
		{"a range that is none", append(good, "--allow-target", "10.0.0.0/40"), "", "--allow-target"},
		{"a file of roots that is not there", append(good, "--roots", "/nonexistent"), "", "--roots"},
		{"a bad value in the environment", good, "ELSEWHERE_ASN=many", "ELSEWHERE_ASN"},
	} {
		t.Run(c.what, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program, c.args...)
			if c.env != "" {
				cmd.Env = append(cmd.Environ(), c.env)
			}
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != 2 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), c.says) {
				t.Errorf("exit %d, %v, said %q; want one line about %q and exit 2", code, err, out, c.says)
			}
		})
	}
}
