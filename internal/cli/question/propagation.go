package question

import (
	"errors"
	"fmt"
)

// PropagationFlags are the flags of propagation. The zero value is none of them.
type PropagationFlags struct {
	// Expect are the values that every resolver should serve.
	Expect []string
	// PublicAt are the addresses of the public resolvers to ask, separated by commas. Default: those that
	// people use at each place.
	PublicAt string
}

// Propagation reads the words after "propagation", and its flags: a question of dns, to the agents' own
// resolvers, to public ones, and to all of the zone's own servers.
func Propagation(args []string, f PropagationFlags) (*Question, error) {
	w, err := split(args, wantsDNS(DNSFlags{}))
	switch {
	case err != nil:
		return nil, err
	case len(w.plain) == 0:
		return nil, errors.New("propagation needs a NAME, such as: elsewhere propagation www.example.com A --expect 203.0.113.10")
	case w.asked:
		return nil, errors.New("@SERVER belongs to dns; propagation asks the agents' own resolvers and public ones, which --public names")
	case len(w.options) > 0:
		return nil, fmt.Errorf("%s belongs to dns; propagation takes flags, which begin with --", quote(w.options[0]))
	case len(f.Expect) == 0:
		return nil, errors.New("propagation needs --expect VALUE, the new data that resolvers should serve")
	}
	q, err := DNS(args, DNSFlags{Expect: f.Expect, Authoritative: true, Public: true, PublicAt: f.PublicAt})
	if err == nil && q.Spec.GetDns().GetClass() != "" {
		err = errors.New("class CH has no zones that propagate; leave it out")
	}
	return q, err
}
