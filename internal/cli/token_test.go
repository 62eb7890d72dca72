package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// keeper is an AccessService that makes the same token again and again, and keeps what it was asked.
type keeper struct {
	pb.UnimplementedAccessServiceServer
	join   *pb.CreateJoinTokenRequest
	api    *pb.CreateAPITokenRequest
	revoke *pb.RevokeTokenRequest
	audit  []*pb.ListAuditEventsRequest
	events int // how many there are
}

var someTime = timestamppb.New(time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC))

func (k *keeper) CreateJoinToken(_ context.Context, r *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	k.join = r
	token := &pb.Token{Id: "jjjjjjjjjj", Purpose: &pb.Token_Join{Join: r.GetJoin()}, CreateTime: someTime, ExpireTime: someTime}
	return &pb.CreateJoinTokenResponse{Token: token, Secret: "ewj1_jjjjjjjjjj_secret_pin"}, nil
}

func (k *keeper) CreateAPIToken(_ context.Context, r *pb.CreateAPITokenRequest) (*pb.CreateAPITokenResponse, error) {
	k.api = r
	return &pb.CreateAPITokenResponse{Token: &pb.Token{Id: "aaaaaaaaaa", Purpose: &pb.Token_Api{Api: r.GetApi()}}, Secret: "ewa1_aaaaaaaaaa_secret"}, nil
}

func (k *keeper) ListTokens(context.Context, *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
	join := func(id string, j *pb.JoinToken, end time.Duration) *pb.Token {
		j.Vantage = &pb.Vantage{Region: "eu-west"}
		return &pb.Token{Id: id, Purpose: &pb.Token_Join{Join: j}, CreateTime: someTime, ExpireTime: timestamppb.New(time.Now().Add(end))}
	}
	return &pb.ListTokensResponse{Tokens: []*pb.Token{
		join("good", &pb.JoinToken{Agent: "fra-1"}, time.Hour), join("used", &pb.JoinToken{UsedBy: "fra-2"}, time.Hour), join("over", &pb.JoinToken{}, -time.Hour),
		{Id: "mine", Purpose: &pb.Token_Api{Api: &pb.APIToken{Name: "ci\x1b[2J", Scope: pb.Scope_SCOPE_MEASURE}}, CreateTime: someTime, RevokeTime: someTime},
	}}, nil
}

func (k *keeper) RevokeToken(_ context.Context, r *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	k.revoke = r
	if r.GetId() == "nosuchone" {
		return nil, status.Error(codes.NotFound, "there is no token nosuchone")
	}
	if r.GetId() == "usedbyfra1" {
		return &pb.RevokeTokenResponse{Token: &pb.Token{Id: r.GetId(), Purpose: &pb.Token_Join{Join: &pb.JoinToken{UsedBy: "fra-1"}}}}, nil
	}
	return &pb.RevokeTokenResponse{Token: &pb.Token{Id: r.GetId(), Purpose: &pb.Token_Api{Api: &pb.APIToken{Name: "ci"}}, RevokeTime: someTime}}, nil
}

func (k *keeper) ListAuditEvents(_ context.Context, r *pb.ListAuditEventsRequest) (*pb.ListAuditEventsResponse, error) {
	k.audit = append(k.audit, r)
	resp := &pb.ListAuditEventsResponse{NextPageToken: "7.1"}
	for range min(int(r.GetPageSize()), k.events) {
		k.events--
		resp.Events = append(resp.Events, &pb.AuditEvent{
			Id: "8.1", Time: someTime, Kind: pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED, Address: "192.0.2.1", Detail: "the token\nis \x1b[31mnot known", RepeatedCount: 7,
		})
	}
	if k.events == 0 {
		resp.NextPageToken = ""
	}
	return resp, nil
}

func (c *coordinator) RevokeAgent(_ context.Context, r *pb.RevokeAgentRequest) (*pb.RevokeAgentResponse, error) {
	if r.GetReason() == "" {
		return nil, status.Error(codes.PermissionDenied, "this needs a token with the scope admin; x has the scope read")
	}
	return &pb.RevokeAgentResponse{Agent: &pb.Agent{Id: r.GetId(), State: pb.AgentState_AGENT_STATE_REVOKED}}, nil
}

func TestAJoinToken(t *testing.T) {
	c := blocked()
	address := c.serve(t)
	w := newWorld(t).at(address)
	got := w.run(t, "token", "create", "--region", "eu-central", "--id", "fra-1", "--label", "tier=edge", "--label", "rack=a=b", "--country", "de", "--asn", "24940", "--ttl", "2d")
	if got.code != 0 || got.out != "ewj1_jjjjjjjjjj_secret_pin\n" {
		t.Errorf("exit %d, stdout %q: %s; want the token alone", got.code, got.out, got.err)
	}
	want := &pb.CreateJoinTokenRequest{Lifetime: durationpb.New(48 * time.Hour), Join: &pb.JoinToken{Agent: "fra-1", Vantage: &pb.Vantage{
		Region: "eu-central", Country: "DE", Asn: 24940, Labels: map[string]string{"tier": "edge", "rack": "a=b"},
	}}}
	if diff := cmp.Diff(want, c.keeper.join, protocmp.Transform()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	for _, says := range []string{"elsewhere-agent --coordinator " + address + " --data-dir /var/lib/elsewhere-agent --join TOKEN\n", "until 2027-03-04 05:06:07 UTC", "this machine alone"} {
		if !strings.Contains(got.err, says) {
			t.Errorf("stderr %q: want %q", got.err, says)
		}
	}
	if strings.Contains(got.err, "secret") {
		t.Errorf("stderr, which may be kept, has the secret: %q", got.err)
	}
	if got := w.run(t, "token", "create", "--region", "eu-west"); !strings.Contains(got.err, "--id NAME --join") {
		t.Errorf("a token for any name: %q", got.err)
	}
	var doc pb.CreateJoinTokenResponse
	if got := w.run(t, "token", "create", "--region", "eu-west", "-J"); protojson.Unmarshal([]byte(got.out), &doc) != nil || doc.GetSecret() == "" || got.err != "" {
		t.Errorf("-J: %q, %q", got.out, got.err)
	}
	if got := w.run(t, "token", "create", "--region", "eu-west", "--format", "csv"); got.out != "id,secret,expires\njjjjjjjjjj,ewj1_jjjjjjjjjj_secret_pin,2027-03-04T05:06:07Z\n" {
		t.Errorf("csv: %q", got.out)
	}
}

func TestAClientsToken(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	got := w.run(t, "token", "create", "--scope", "measure", "--name", "CI of the shop", "--hourly", "600", "--agents", "50")
	if got.code != 0 || got.out != "ewa1_aaaaaaaaaa_secret\n" || !strings.Contains(got.err, "token revoke aaaaaaaaaa") || strings.Contains(got.err, "secret") {
		t.Errorf("exit %d, stdout %q, stderr %q", got.code, got.out, got.err)
	}
	want := &pb.CreateAPITokenRequest{Api: &pb.APIToken{Name: "CI of the shop", Scope: pb.Scope_SCOPE_MEASURE, Quota: &pb.Quota{Hourly: 600, Agents: 50}}}
	if diff := cmp.Diff(want, c.keeper.api, protocmp.Transform()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestTokensAndAuditAreLists(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	got := w.run(t, "token", "list")
	var states []string
	for line := range strings.Lines(got.out) {
		states = append(states, strings.Join(strings.Fields(line), " "))
	}
	for i, want := range []string{"ID FOR ALLOWS CREATED EXPIRES STATE", "good agent fra-1 join eu-west", "used any agent join", "over any agent join", `mine ci\x1b[2J measure 2027-03-04T05:06:07Z - revoked`} {
		if !strings.HasPrefix(states[i], want) {
			t.Errorf("line %d: %q, want %q", i, states[i], want)
		}
	}
	for i, want := range []string{1: "good", 2: "used by fra-2", 3: "expired"} {
		if want != "" && !strings.HasSuffix(states[i], want) {
			t.Errorf("line %d: %q, want %q", i, states[i], want)
		}
	}
	if got := w.run(t, "token", "list", "--format", "jsonl"); strings.Count(got.out, "\n") != 4 {
		t.Errorf("jsonl: %q", got.out)
	}
	c.keeper.events = 250
	got = w.run(t, "audit", "--agent", "fra-1", "--kind", "token-refused", "--kind", "FLOOD", "-n", "220")
	if lines := strings.Count(got.out, "\n"); lines != 221 || got.code != 0 {
		t.Errorf("%d lines of audit, exit %d %s; want a head and 220", lines, got.code, got.err)
	}
	if row := strings.Join(strings.Fields(strings.Split(got.out, "\n")[1]), " "); row != `2027-03-04T05:06:07Z token_refused - - 192.0.2.1 7 the token is \x1b[31mnot known` {
		t.Errorf("a row of audit: %q", row)
	}
	asked := []*pb.ListAuditEventsRequest{
		{PageSize: 200, Agent: "fra-1", Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED, pb.AuditKind_AUDIT_KIND_FLOOD}},
		{PageSize: 20, PageToken: "7.1", Agent: "fra-1", Kinds: []pb.AuditKind{pb.AuditKind_AUDIT_KIND_TOKEN_REFUSED, pb.AuditKind_AUDIT_KIND_FLOOD}},
	}
	if diff := cmp.Diff(asked, c.keeper.audit, protocmp.Transform()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestRevoking(t *testing.T) {
	c := blocked()
	w := newWorld(t).at(c.serve(t))
	for _, row := range []struct {
		args     []string
		code     int
		out, err string
	}{
		{[]string{"token", "revoke", "k3v7q2mz5a"}, 0, "", "k3v7q2mz5a is revoked\n"},
		{[]string{"token", "revoke", "k3v7q2mz5a", "-J"}, 0, `"revokeTime": "2027-03-04T05:06:07Z"`, ""},
		{[]string{"token", "revoke", "k3v7q2mz5a", "--format", "csv"}, 0, "id,for,allows,created,expires,state\nk3v7q2mz5a,ci,", ""},
		{[]string{"token", "revoke", "usedbyfra1"}, 0, "", "usedbyfra1 is revoked\nfra-1, which enrolled with it, stays; 'elsewhere agents revoke fra-1' shuts it out\n"},
		{[]string{"token", "revoke", "nosuchone"}, cli.ExitUsage, "", "there is no token nosuchone"},
		{[]string{"token", "revoke", "ewa1_k3v7q2mz5a_x"}, cli.ExitUsage, "", "id alone"},
		{[]string{"agents", "revoke", "fra-1", "--reason", "sold"}, 0, "", "fra-1 is revoked\n"},
		{[]string{"agents", "revoke", "fra-1", "--reason", "sold", "-J"}, 0, `"state": "AGENT_STATE_REVOKED"`, ""},
		{[]string{"agents", "revoke", "fra-1"}, cli.ExitNetwork, "", "use a token with the scope"},
	} {
		got := w.run(t, row.args...)
		if got.code != row.code || !strings.Contains(got.out, row.out) || row.out == "" && got.out != "" || !strings.Contains(got.err, row.err) {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", row.args, got.code, got.out, got.err)
		}
	}
}

func TestATokenFromAFile(t *testing.T) {
	c := blocked()
	address, ca := secured(t, c)
	path := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(path, []byte("ewa1_x_y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w["ELSEWHERE_CA"], w["ELSEWHERE_COORDINATOR"], w["ELSEWHERE_TOKEN"] = ca, address, "@"+path
	w.run(t, "tcp", "example.com:443")
	w.run(t, "tcp", "example.com:443", "--token", "ewa1_other")
	if diff := cmp.Diff([]string{"Bearer ewa1_x_y", "Bearer ewa1_other"}, c.tokens); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	delete(w, "ELSEWHERE_CA")
	if got := w.run(t, "agents"); got.code != cli.ExitNetwork || !strings.Contains(got.err, "--ca FILE: ca.pem of the coordinator's data directory") {
		t.Errorf("with a token and without its CA: exit %d, %q", got.code, got.err)
	}
}

func TestWhoIsOverAQuotaIsToldWhen(t *testing.T) {
	c := blocked()
	over, err := status.New(codes.ResourceExhausted, "the token x allows 2 measurements at once").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(11_200 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	c.refuse = over.Err()
	got := newWorld(t).at(c.serve(t)).run(t, "tcp", "example.com:443")
	if got.code != cli.ExitNetwork || !strings.Contains(got.err, "the token x allows 2 measurements at once; try again in 12s\n") {
		t.Errorf("exit %d, %q", got.code, got.err)
	}
}
