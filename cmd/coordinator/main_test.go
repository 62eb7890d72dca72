package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadCommandLines(t *testing.T) {
	program := filepath.Join(t.TempDir(), "elsewhere-coordinator")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	good := []string{"--insecure", "--data-dir", t.TempDir()}
	for _, c := range []struct {
		what string
		args []string
		env  string
		says string
	}{
		{"nothing", nil, "", "--data-dir"},
		{"an unknown flag", append(good, "--frobnicate"), "", "--frobnicate"},
		{"an argument", append(good, "now"), "", "now"},
		{"every address without TLS", append(good, "--grpc-addr", "0.0.0.0:0"), "", "--grpc-addr 0.0.0.0:0 with --insecure"},
		{"every IPv6 address without TLS", append(good, "--nats-addr", "[::]:0"), "", "--nats-addr [::]:0 with --insecure"},
		{"any address without TLS", append(good, "--grpc-addr", ":0"), "", "--grpc-addr :0 with --insecure"},
		{"a life of a second", append(good, "--agent-certificate-life", "1s"), "", "--agent-certificate-life"},
		{"a budget below 0", append(good, "--target-rate", "-1"), "", "--target-rate"},
		{"an address without a port", append(good, "--grpc-addr", "127.0.0.1"), "", "--grpc-addr"},
		{"port 99999", append(good, "--nats-addr", "127.0.0.1:99999"), "", "--nats-addr"},
		{"a port that is a word", append(good, "--http-addr", "127.0.0.1:http"), "", "--http-addr"},
		{"a list of resolvers that is none", append(good, "--public-resolvers", "main.go"), "", "--public-resolvers: main.go: yaml: line"},
		{"a list of opt-outs that is none", append(good, "--opt-outs", "main.go"), "", "--opt-outs: main.go:1: "},
		{"an age that is none", append(good, "--retention-age", "a month"), "", "--retention-age"},
		{"a bad value in the environment", good, "ELSEWHERE_RETENTION_BYTES=much", "ELSEWHERE_RETENTION_BYTES"},
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
