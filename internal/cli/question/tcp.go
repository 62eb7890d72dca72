package question

import (
	"fmt"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// TCPFlags are the flags of tcp. The zero value is none of them.
type TCPFlags struct {
	// Expect is "open" or "blocked".
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

// reachability reads the --expect of tcp.
func reachability(s string) (pb.Reachability, error) {
	switch strings.ToLower(s) {
	case "":
		return pb.Reachability_REACHABILITY_UNSPECIFIED, nil
	case "open":
		return pb.Reachability_REACHABILITY_OPEN, nil
	case "blocked":
		return pb.Reachability_REACHABILITY_BLOCKED, nil
	}
	return 0, fmt.Errorf("--expect %s is not known; a port is expected open or blocked", quote(s))
}
