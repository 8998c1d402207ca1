// Who may connect? Pipeward asks here at each handshake and refresh; docs/authorization.md has the whole contract.
//
//	PIPEWARD_SECRET=… go run examples/authorize/go.go
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

type object map[string]any

type call struct {
	Kind    string            `json:"kind"`
	Headers map[string]string `json:"headers"`
}

type session struct {
	ID, User string
	Claims   object
}

// Your session store.
var sessions = map[string]session{
	"ann-session": {"s-1", "ann", object{"id": "ann", "name": "Ann", "role": "admin", "team": "red", "tenant": "acme", "features": []string{"chat"}}},
}

// The part that is yours: the answer, or nil to refuse.
func authorize(c call) any {
	upgrade := http.Request{Header: http.Header{"Cookie": {c.Headers["cookie"]}}}
	cookie, err := upgrade.Cookie("session")
	if err != nil {
		return nil
	}
	s, ok := sessions[cookie.Value]
	if !ok {
		return nil
	}
	return object{
		"user":       s.Claims,
		"pipes":      object{"user-" + s.User: object{"subscribe": true}},
		"session":    s.ID,
		"expires_at": time.Now().Add(time.Hour).UnixMilli(),
	}
}

// Whether Pipeward said this, in the last five minutes.
func isSigned(header string, body []byte) bool {
	t, v1, _ := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	at, err := strconv.ParseInt(t, 10, 64)
	given, bad := hex.DecodeString(v1)
	if err != nil || bad != nil || time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return false
	}
	own := hmac.New(sha256.New, []byte(os.Getenv("PIPEWARD_SECRET")))
	fmt.Fprintf(own, "%s.%s", t, body)
	return hmac.Equal(own.Sum(nil), given)
}

func handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	var c call
	// 400 and not 401: whoever asks is not Pipeward, or the secrets differ; the client has done nothing wrong.
	if err != nil || !isSigned(r.Header.Get("X-Pipeward-Signature"), body) || json.Unmarshal(body, &c) != nil ||
		(c.Kind != "connect" && c.Kind != "refresh") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(authorize(c))
}

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil || os.Getenv("PIPEWARD_SECRET") == "" {
		log.Fatal("PIPEWARD_SECRET is not set, or the port is taken: ", err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(handle)))
}
