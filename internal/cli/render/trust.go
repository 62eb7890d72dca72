package render

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// JoinToken writes an agent's token, alone, and on Err what to do with it. address is the coordinator's; onlyHere says
// that no other machine can reach it so.
func (s Screen) JoinToken(resp *pb.CreateJoinTokenResponse, address string, onlyHere bool) error {
	done, err := s.secret(resp, resp.GetToken(), resp.GetSecret())
	if done || err != nil {
		return err
	}
	join := resp.GetToken().GetJoin()
	words := "elsewhere-agent --coordinator " + address + " --data-dir /var/lib/elsewhere-agent"
	if join.GetAgent() == "" {
		words += " --id NAME"
	}
	token := "TOKEN" // it may be kept what a script's stderr says
	if s.Terminal {
		token = resp.GetSecret()
	}
	fmt.Fprintf(s.Err, "good for one agent in %s until %s; on its machine:\n  %s --join %s\n",
		Clean(join.GetVantage().GetRegion()), clock(resp.GetToken().GetExpireTime()), words, token)
	if onlyHere {
		fmt.Fprintf(s.Err, "%s is this machine alone: from another one, name the coordinator as it is reached from there\n", address)
	}
	return nil
}

// APIToken writes a client's token, alone, and on Err what to do with it.
func (s Screen) APIToken(resp *pb.CreateAPITokenResponse) error {
	done, err := s.secret(resp, resp.GetToken(), resp.GetSecret())
	if done || err != nil {
		return err
	}
	until := "for ever, or until 'elsewhere token revoke " + resp.GetToken().GetId() + "'"
	if end := resp.GetToken().GetExpireTime(); end != nil {
		until = "until " + clock(end)
	}
	fmt.Fprintf(s.Err, "good %s; give it by ELSEWHERE_TOKEN, or in a file by --token @FILE\n", until)
	return nil
}

// secret writes what was made: the response as data, or the secret alone; done says that there is no more to say.
func (s Screen) secret(resp proto.Message, token *pb.Token, secret string) (done bool, err error) {
	if s.Format == Table {
		_, err := io.WriteString(s.Out, secret+"\n")
		return false, err
	}
	return true, s.list(resp, []proto.Message{resp}, [][]string{{"ID", "SECRET", "EXPIRES"}, {token.GetId(), secret, stamp(token.GetExpireTime())}})
}

// clock is a time for people.
func clock(t *timestamppb.Timestamp) string {
	return t.AsTime().UTC().Format("2006-01-02 15:04:05 UTC")
}

// stamp is a time in a list; empty if there is none.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// RevokedToken says on Err that a token was revoked, or writes the response as data. What an agent has used
// shuts nobody out any more, and is said.
func (s Screen) RevokedToken(resp *pb.RevokeTokenResponse, now time.Time) error {
	if s.Format == Table {
		err := s.revoked(resp.GetToken().GetId())
		if agent := Clean(resp.GetToken().GetJoin().GetUsedBy()); err == nil && agent != "" {
			_, err = fmt.Fprintf(s.Err, "%s, which enrolled with it, stays; 'elsewhere agents revoke %s' shuts it out\n", agent, agent)
		}
		return err
	}
	return s.list(resp, []proto.Message{resp}, [][]string{tokenHead(), tokenRow(resp.GetToken(), now)})
}

// RevokedAgent says on Err that an agent was revoked, or writes the response as data.
func (s Screen) RevokedAgent(resp *pb.RevokeAgentResponse, now time.Time) error {
	if s.Format == Table {
		return s.revoked(resp.GetAgent().GetId())
	}
	return s.list(resp, []proto.Message{resp}, [][]string{s.agentHead(), s.agentRow(resp.GetAgent(), now)})
}

func (s Screen) revoked(id string) error {
	_, err := fmt.Fprintf(s.Err, "%s is revoked\n", Clean(id))
	return err
}

// Tokens writes a list of tokens; now decides which are good.
func (s Screen) Tokens(list *pb.ListTokensResponse, now time.Time) error {
	rows := [][]string{tokenHead()}
	items := make([]proto.Message, 0, len(list.GetTokens()))
	for _, t := range list.GetTokens() {
		items = append(items, t)
		rows = append(rows, tokenRow(t, now))
	}
	return s.list(list, items, rows)
}

func tokenHead() []string { return []string{"ID", "FOR", "ALLOWS", "CREATED", "EXPIRES", "STATE"} }

// tokenRow is one token.
func tokenRow(t *pb.Token, now time.Time) []string {
	whom, allows := t.GetApi().GetName(), short(t.GetApi().GetScope(), "SCOPE_")
	if j := t.GetJoin(); j != nil {
		whom, allows = "agent "+j.GetAgent(), "join "+j.GetVantage().GetRegion()
		if j.GetAgent() == "" {
			whom = "any agent"
		}
	}
	return []string{t.GetId(), whom, allows, stamp(t.GetCreateTime()), stamp(t.GetExpireTime()), tokenState(t, now)}
}

// tokenState is what became of a token.
func tokenState(t *pb.Token, now time.Time) string {
	switch end := t.GetExpireTime(); {
	case t.GetJoin().GetUsedBy() != "":
		return "used by " + t.GetJoin().GetUsedBy()
	case t.GetRevokeTime() != nil:
		return "revoked"
	case end != nil && !now.Before(end.AsTime()):
		return "expired"
	}
	return "good"
}

// AuditKinds are the kinds of audit events, as they are shown and typed.
func AuditKinds() []string {
	var kinds []string
	for number := range pb.AuditKind_name {
		if number != 0 {
			kinds = append(kinds, auditKind(pb.AuditKind(number)))
		}
	}
	slices.Sort(kinds)
	return kinds
}

func auditKind(k pb.AuditKind) string { return short(k, "AUDIT_KIND_") }

// AuditEvents writes a list of audit events.
func (s Screen) AuditEvents(list *pb.ListAuditEventsResponse) error {
	rows := [][]string{{"TIME", "KIND", "AGENT", "TOKEN", "ADDRESS", "TIMES", "DETAIL"}}
	items := make([]proto.Message, 0, len(list.GetEvents()))
	for _, e := range list.GetEvents() {
		items = append(items, e)
		times := strconv.Itoa(max(1, int(e.GetRepeatedCount())))
		rows = append(rows, []string{
			stamp(e.GetTime()), auditKind(e.GetKind()), e.GetAgent(), e.GetTokenId(), e.GetAddress(), times,
			strings.Join(strings.Fields(e.GetDetail()), " "),
		})
	}
	return s.list(list, items, rows)
}
