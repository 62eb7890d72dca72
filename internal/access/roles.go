package access

import (
	"fmt"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Role is what a caller must be to use a method.
type Role int

// The roles. A scope includes those before it; the others include nobody else.
const (
	// Nobody may.
	Nobody Role = iota
	// Anybody may, a stranger too.
	Anybody
	// Read is a token of SCOPE_READ.
	Read
	// Measure is a token of SCOPE_MEASURE.
	Measure
	// Admin is a token of SCOPE_ADMIN.
	Admin
	// Agent is an enrolled agent.
	Agent
	// AgentOnceMore is an enrolled agent whose certificate may have ended.
	AgentOnceMore
)

// roles are the methods that may be called, by full name. What is not here nobody may call.
func roles() map[string]Role {
	return map[string]Role{
		"/elsewhere.v1.MeasurementService/CreateMeasurement": Measure,
		"/elsewhere.v1.MeasurementService/CancelMeasurement": Measure,
		"/elsewhere.v1.MeasurementService/GetMeasurement":    Read,
		"/elsewhere.v1.MeasurementService/ListMeasurements":  Read,
		"/elsewhere.v1.MeasurementService/ListResults":       Read,
		"/elsewhere.v1.MeasurementService/WatchMeasurement":  Read,

		"/elsewhere.v1.FleetService/ListAgents":  Read,
		"/elsewhere.v1.FleetService/WatchAgents": Read,
		"/elsewhere.v1.FleetService/RevokeAgent": Admin,

		"/elsewhere.v1.AccessService/CreateJoinToken": Admin,
		"/elsewhere.v1.AccessService/CreateAPIToken":  Admin,
		"/elsewhere.v1.AccessService/ListTokens":      Admin,
		"/elsewhere.v1.AccessService/RevokeToken":     Admin,
		"/elsewhere.v1.AccessService/ListAuditEvents": Admin,

		"/elsewhere.v1.CoordinatorService/GetStatus":        Admin,
		"/elsewhere.v1.CoordinatorService/ListCoordinators": Read,
		"/elsewhere.v1.CoordinatorService/Backup":           Admin,
		"/elsewhere.v1.CoordinatorService/ListAuthorities":  Admin,
		"/elsewhere.v1.CoordinatorService/AddAuthority":     Admin,
		"/elsewhere.v1.CoordinatorService/UseAuthority":     Admin,
		"/elsewhere.v1.CoordinatorService/DropAuthority":    Admin,

		"/elsewhere.v1.RegistrationService/Enroll":   Anybody,
		"/elsewhere.v1.RegistrationService/Renew":    AgentOnceMore,
		"/elsewhere.v1.RegistrationService/Register": Agent,
		"/elsewhere.v1.ResultService/Report":         Agent,

		"/grpc.health.v1.Health/Check": Anybody,
		"/grpc.health.v1.Health/List":  Anybody,
		"/grpc.health.v1.Health/Watch": Anybody,

		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      Read,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Read,
	}
}

// Refusal is an error that says why a caller may not use a method.
type Refusal struct {
	// Unknown says that the caller did not say who he is; otherwise he is not allowed.
	Unknown bool
	why     string
}

// Error says why.
func (r *Refusal) Error() string { return r.why }

// Rules say who may call what. The zero value has nobody call anything.
type Rules struct{ roles map[string]Role }

// NewRules returns the rules.
func NewRules() Rules { return Rules{roles()} }

// Role is who may call a method, by its full name.
func (r Rules) Role(method string) Role { return r.roles[method] }

// Allow says whether a caller may call a method; an error is a *Refusal.
func (r Rules) Allow(method string, c Caller) error {
	role := r.Role(method)
	switch role {
	case Anybody:
		return nil
	case Read, Measure, Admin:
		return inScope(role, c)
	case Agent, AgentOnceMore:
		return asAgent(role, c)
	case Nobody:
	}
	return &Refusal{false, "nobody may call this"}
}

// scopeOf is the scope that a role of clients asks for.
func scopeOf(role Role) pb.Scope {
	switch role {
	case Read:
		return pb.Scope_SCOPE_READ
	case Measure:
		return pb.Scope_SCOPE_MEASURE
	case Nobody, Anybody, Admin, Agent, AgentOnceMore:
	}
	return pb.Scope_SCOPE_ADMIN
}

// word is a scope as it is said and typed: "read".
func word(s pb.Scope) string { return strings.ToLower(strings.TrimPrefix(s.String(), "SCOPE_")) }

// inScope says whether a caller's token is enough for a role.
func inScope(role Role, c Caller) error {
	need := scopeOf(role)
	switch {
	case c.Scope >= need:
		return nil
	case c.Token != nil:
		return &Refusal{false, fmt.Sprintf("this needs a token with the scope %s; %s has the scope %s", word(need), c.Token.GetId(), word(c.Scope))}
	}
	return &Refusal{true, fmt.Sprintf("this needs a token with the scope %s, in \"authorization: Bearer TOKEN\"", word(need))}
}

// asAgent says whether a caller is an agent whose certificate is good enough for a role.
func asAgent(role Role, c Caller) error {
	switch {
	case c.Agent == "":
		return &Refusal{true, "this is for enrolled agents: the connection shows no certificate"}
	case c.Expired && role == Agent:
		return &Refusal{true, "the certificate has ended: renew it first"}
	}
	return nil
}
