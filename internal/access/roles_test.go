package access

import (
	"errors"
	"strings"
	"testing"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

func TestRules(t *testing.T) {
	token := &pb.Token{Id: "k3v7q2mz5a"}
	reader := Caller{Scope: pb.Scope_SCOPE_READ, Token: token}
	admin := Caller{Scope: pb.Scope_SCOPE_ADMIN, Token: token}
	agent := Caller{Agent: "a"}
	late := Caller{Agent: "a", Expired: true}
	const register, renew, agents = "/elsewhere.v1.RegistrationService/Register", "/elsewhere.v1.RegistrationService/Renew", "/elsewhere.v1.FleetService/ListAgents"
	for _, row := range []struct {
		what    string
		method  string
		caller  Caller
		says    string // "": it is allowed
		unknown bool
	}{
		{"a stranger enrols", "/elsewhere.v1.RegistrationService/Enroll", Caller{}, "", false},
		{"a stranger registers", register, Caller{}, "no certificate", true},
		{"a client registers", register, admin, "no certificate", true},
		{"an agent registers", register, agent, "", false},
		{"a certificate that ended", register, late, "renew it first", true},
		{"renews one that ended", renew, late, "", false},
		{"a stranger renews", renew, Caller{}, "no certificate", true},
		{"a stranger looks", agents, Caller{}, "scope read, in \"authorization: Bearer", true},
		{"an agent looks", agents, agent, "scope read", true},
		{"a reader looks", agents, reader, "", false},
		{"a reader measures", "/elsewhere.v1.MeasurementService/CreateMeasurement", reader, "scope measure; k3v7q2mz5a has the scope read", false},
		{"a reader takes a backup", "/elsewhere.v1.CoordinatorService/Backup", reader, "scope admin", false},
		{"an administrator does all", "/elsewhere.v1.CoordinatorService/Backup", admin, "", false},
		{"and nothing that has no rule", "/elsewhere.v1.FleetService/Nothing", admin, "nobody", false},
		{"nor by a name without its slash", agents[1:], admin, "nobody", false},
		{"nor by no name", "", admin, "nobody", false},
	} {
		err := NewRules().Allow(row.method, row.caller)
		var refused *Refusal
		if (err == nil) != (row.says == "") || err != nil && (!errors.As(err, &refused) || refused.Unknown != row.unknown || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: %v; want %q", row.what, err, row.says)
		}
	}
	if (Rules{}).Allow(agents, admin) == nil {
		t.Error("without rules somebody may do something")
	}
}
