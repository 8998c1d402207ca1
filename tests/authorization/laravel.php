<?php
// As much of Laravel as examples/authorize/laravel.php uses, so that the route can be run without it.

namespace Illuminate\Support\Facades {
    class Route
    {
        public static array $posts = [];

        public static function post(string $path, callable $action): void
        {
            self::$posts[$path] = $action;
        }
    }
}

namespace Illuminate\Http {
    class Request
    {
        public function header(string $name, string $default): string
        {
            return $_SERVER['HTTP_' . strtoupper(strtr($name, '-', '_'))] ?? $default;
        }

        public function getContent(): string
        {
            return (string) file_get_contents('php://input');
        }

        public function input(string $path, mixed $default = null): mixed
        {
            $value = json_decode($this->getContent(), true);
            foreach (explode('.', $path) as $name) {
                if (!isset($value[$name])) {
                    return $default;
                }
                $value = $value[$name];
            }
            return $value;
        }
    }
}

namespace Laravel\Sanctum {
    class PersonalAccessToken
    {
        public string $id = 's-1';
        public object $tokenable;

        public static function findToken(string $token): ?self
        {
            if ($token !== 'ann-session') {
                return null;
            }
            $found = new self();
            $found->tokenable = (object) ['id' => 'ann', 'name' => 'Ann', 'role' => 'admin', 'team' => 'red', 'tenant' => 'acme'];
            return $found;
        }
    }
}

namespace {
    class Refused extends Exception
    {
    }

    function config(string $key): string
    {
        return $key === 'services.pipeward.secret' ? (string) getenv('PIPEWARD_SECRET') : '';
    }

    function abort_unless(bool $condition, int $status): void
    {
        if (!$condition) {
            throw new Refused('', $status);
        }
    }

    function response(): object
    {
        return new class {
            public function json(array $body): string
            {
                return json_encode($body, JSON_THROW_ON_ERROR);
            }
        };
    }

    require __DIR__ . '/../../examples/authorize/laravel.php';
    try {
        $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
        $answer = (Illuminate\Support\Facades\Route::$posts[$path])(new Illuminate\Http\Request());
        header('Content-Type: application/json');
        echo $answer;
    } catch (Refused $refused) {
        http_response_code($refused->getCode());
    }
}
