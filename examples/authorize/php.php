<?php
// Who may connect? Pipeward asks here at each handshake and refresh; docs/authorization.md has the whole contract.
// PIPEWARD_SECRET=… php -S 127.0.0.1:3000 examples/authorize/php.php

declare(strict_types=1);

// Your session store.
const ANN = ['id' => 'ann', 'name' => 'Ann', 'role' => 'admin', 'team' => 'red', 'tenant' => 'acme', 'features' => ['chat']];
const SESSIONS = ['ann-session' => ['id' => 's-1', 'user' => ANN]];

// The part that is yours: the answer, or null to refuse.
function authorize(array $call): ?array
{
    preg_match('/(?:^|; )session=([^;]+)/', $call['headers']['cookie'] ?? '', $cookie);
    $session = SESSIONS[$cookie[1] ?? ''] ?? null;
    if ($session === null) {
        return null;
    }
    return [
        'user' => $session['user'],
        // An empty PHP array would be `[]` in JSON: write (object) [] where nothing is granted.
        'pipes' => ["user-{$session['user']['id']}" => ['subscribe' => true]],
        'session' => $session['id'],
        'expires_at' => (time() + 3600) * 1000,
    ];
}

// Whether Pipeward said this, in the last five minutes.
function is_signed(string $header, string $body): bool
{
    if (!preg_match('/^t=(\d+),v1=([0-9a-f]{64})$/D', $header, $parts) || abs(time() - (int) $parts[1]) > 300) {
        return false;
    }
    return hash_equals(hash_hmac('sha256', "$parts[1].$body", (string) getenv('PIPEWARD_SECRET')), $parts[2]);
}

if (!getenv('PIPEWARD_SECRET')) {
    throw new RuntimeException('PIPEWARD_SECRET is not set');
}
$body = (string) file_get_contents('php://input');
// 400 and not 401: whoever asks is not Pipeward, or the secrets differ; the client has done nothing wrong.
$call = is_signed($_SERVER['HTTP_X_PIPEWARD_SIGNATURE'] ?? '', $body) ? json_decode($body, true) : null;
if (!in_array($call['kind'] ?? null, ['connect', 'refresh'], true)) {
    http_response_code(400);
    exit;
}
header('Content-Type: application/json');
echo json_encode(authorize($call), JSON_THROW_ON_ERROR);
