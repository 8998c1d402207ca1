<?php
// Who may connect? For routes/api.php of a Laravel application with Sanctum: the client connects with its API token, as
// ?token=… or as the subprotocol pipeward.token.…, and Pipeward hands it on. docs/authorization.md has the whole contract.
// In config/services.php: 'pipeward' => ['secret' => env('PIPEWARD_SECRET')].

use Illuminate\Http\Request;
use Illuminate\Support\Facades\Route;
use Laravel\Sanctum\PersonalAccessToken;

Route::post('/realtime/authorize', function (Request $request) {
    // Whether Pipeward said this, in the last five minutes. 400 and not 401: the client has done nothing wrong.
    $signed = preg_match('/^t=(\d+),v1=([0-9a-f]{64})$/D', $request->header('X-Pipeward-Signature', ''), $parts)
        && abs(time() - (int) $parts[1]) <= 300
        && hash_equals(hash_hmac('sha256', "$parts[1].{$request->getContent()}", config('services.pipeward.secret')), $parts[2]);
    abort_unless($signed && in_array($request->input('kind'), ['connect', 'refresh'], true), 400);

    $bearer = preg_replace('/^Bearer /i', '', (string) $request->input('headers.authorization'));
    $token = PersonalAccessToken::findToken($bearer);
    // Not response()->json(null): Laravel writes that as `{}`, which is no answer.
    abort_unless($token !== null, 401);
    $user = $token->tokenable;

    return response()->json([
        'user' => ['id' => (string) $user->id, 'name' => $user->name, 'role' => $user->role, 'team' => $user->team, 'tenant' => $user->tenant],
        // An empty PHP array would be `[]` in JSON: write (object) [] where nothing is granted.
        'pipes' => ["user-{$user->id}" => ['subscribe' => true]],
        'session' => (string) $token->id,
        'expires_at' => (time() + 3600) * 1000,
    ]);
});
