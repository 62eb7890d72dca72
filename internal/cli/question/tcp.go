package question

import (
	"fmt"
	"slices"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TCPFlags are the flags of tcp. The zero value is none of them.
type TCPFlags struct {
	// Expect is one of Reachabilities.
	Expect string
	// Path traces the path to every address.
	Path bool
}

// TCP reads the words after "tcp", and its flags.
func TCP(args []string, f TCPFlags) (*Question, error) {
	w, err := splitHost("tcp", "HOST:PORT, such as example.com:443", args)
	if err != nil {
		return nil, err
	}
	host, port, err := hostPort(w.plain[0], 0)
	if err != nil {
		return nil, err
	}
	reach, err := reachability(f.Expect)
	if err != nil {
		return nil, err
	}
	spec := &pb.TCPSpec{Host: host, Port: port, Expect: reach, Path: f.Path}
	return &Question{Spec: &pb.Spec{Check: &pb.Spec_Tcp{Tcp: spec}}, From: w.from}, nil
}

// Reachabilities are what a way can be expected to be.
func Reachabilities() []string { return []string{"open", "blocked", "refused", "dropped"} }

// reachability reads the --expect of tcp, tls and http.
func reachability(s string) (pb.Reachability, error) {
	if s == "" {
		return pb.Reachability_REACHABILITY_UNSPECIFIED, nil
	}
	lower := strings.ToLower(s)
	if !slices.Contains(Reachabilities(), lower) {
		return 0, fmt.Errorf("--expect %s is not known; it is open or blocked, or in which way blocked: refused or dropped", quote(s))
	}
	return pb.Reachability(pb.Reachability_value["REACHABILITY_"+strings.ToUpper(lower)]), nil
}
