// @vitest-environment happy-dom
// React bindings: HP-7…HP-11 as components meet them.
import { act, type ReactNode, StrictMode, useState } from 'react';
import { flushSync } from 'react-dom';
import { createRoot, hydrateRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createPipeClient } from '../../src/react/index.js';
import type { PipeEvent } from '../../src/core/types.js';
import { ServerDouble } from './server-double.js';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

interface Events {
  message: { text: string };
  typing: { user: string };
}

let server: ServerDouble;
let bindings: ReturnType<typeof bind>;
let page: HTMLElement;
let root: Root;
const revoked: string[] = [];

function bind() {
  return createPipeClient<Events>({
    url: 'ws://edge.example',
    WebSocket: server.WebSocket,
    onPipeRevoked: (pipe) => revoked.push(pipe),
    onAllPipesRevoked: () => revoked.push('all'),
    onError: () => undefined,
  });
}

beforeEach(() => {
  server = new ServerDouble();
  bindings = bind();
  page = document.createElement('div');
  root = createRoot(page);
  revoked.length = 0;
});

afterEach(async () => {
  await settle(() => flushSync(() => root.unmount()));
  bindings.client.close();
  vi.restoreAllMocks();
});

/** Does something and lets what it began come to its end. */
const settle = (begin: () => void = () => undefined) =>
  act(async () => {
    begin();
    await new Promise<void>((resolve) => setTimeout(resolve, 10));
  });

/** Renders at once: within `act` it would wait for the end. */
const show = (children: ReactNode) => settle(() => flushSync(() => root.render(children)));

const say = (pipe: string, text: string) => act(() => server.event(pipe, 'message', { text }));

/** Shows what it has heard. */
function Heard({ pipe = 'team', mark = '' }: { pipe?: string | null; mark?: string }) {
  const [all, setAll] = useState<string[]>([]);
  const { status, error } = bindings.usePipe(pipe, { message: ({ data }) => setAll([...all, mark + data.text]) });
  return <p>{`${status}${error ? ` ${error.code}` : ''}: ${all.join(' ')}`}</p>;
}

describe('usePipe', () => {
  it('hears the events of its pipe', async () => {
    await show(
      <bindings.PipeProvider>
        <Heard />
      </bindings.PipeProvider>,
    );
    await say('team', 'one');
    await say('other', 'two');
    await act(() => server.event('team', 'typing', { user: 'bob' }));
    expect(page.textContent).toBe('subscribed: one');
  });

  it('shares one subscription and one connection between components, until the last is gone', async () => {
    const Some = ({ count }: { count: number }) => (
      <bindings.PipeProvider>
        {Array.from({ length: count }, (_, at) => (
          <Heard key={at} />
        ))}
      </bindings.PipeProvider>
    );
    await show(<Some count={3} />);
    await say('team', 'one');
    expect(page.textContent).toBe('subscribed: one'.repeat(3));
    await show(<Some count={1} />);
    await say('team', 'two');
    expect(page.textContent).toBe('subscribed: one two');
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team']);
    await show(<Some count={0} />);
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team', 'unsubscribe team']);
    expect(server.sockets.length).toBe(1);
  });

  it('does not notice strict mode', async () => {
    await show(
      <StrictMode>
        <bindings.PipeProvider>
          <Heard />
        </bindings.PipeProvider>
      </StrictMode>,
    );
    await say('team', 'one');
    expect(page.textContent).toBe('subscribed: one');
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team']);
    expect(server.sockets.length).toBe(1);
  });

  it('does not notice that everything is set up again in one go, as fast refresh does', async () => {
    const App = ({ edit }: { edit: number }) => (
      <bindings.PipeProvider key={edit}>
        <Heard key={edit} mark={`${edit}:`} />
      </bindings.PipeProvider>
    );
    await show(<App edit={1} />);
    await show(<App edit={2} />);
    await say('team', 'one');
    expect(page.textContent).toBe('subscribed: 2:one');
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team']);
    expect(server.open.length).toBe(1);
    expect(server.sockets.length).toBe(1);
  });

  it('calls the handler of the latest render', async () => {
    const heard: string[] = [];
    const Latest = ({ room }: { room: string }) => {
      bindings.usePipe('team', { message: ({ data }) => heard.push(`${room} ${data.text}`) });
      return null;
    };
    await show(<Latest room="a" />);
    await say('team', 'one');
    await show(<Latest room="b" />);
    await say('team', 'two');
    expect(heard).toEqual(['a one', 'b two']);
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team']);
  });

  it('takes up and drops handlers of single events', async () => {
    const heard: string[] = [];
    const Some = ({ typing }: { typing: boolean }) => {
      const note = ({ event }: PipeEvent) => heard.push(event);
      bindings.usePipe('team', typing ? { message: note, typing: note } : { message: note });
      return null;
    };
    const both = () => act(() => ['message', 'typing'].forEach((event) => server.event('team', event, {})));
    await show(<Some typing={false} />);
    await both();
    await show(<Some typing />);
    await both();
    await show(<Some typing={false} />);
    await both();
    expect(heard).toEqual(['message', 'message', 'typing', 'message']);
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team']);
  });

  it('ignores a handler that is undefined', async () => {
    const Off = () => <p>{bindings.usePipe('team', { message: undefined as never }).status}</p>;
    await show(<Off />);
    expect([page.textContent, server.log('subscribe')]).toEqual(['idle', []]);
  });

  it('goes from one pipe to another', async () => {
    await show(<Heard pipe="a" />);
    await settle(() => {
      flushSync(() => root.render(<Heard pipe="b" />));
      // Before the old subscription has ended at the server.
      server.event('a', 'message', { text: 'late' });
    });
    await say('b', 'one');
    expect(page.textContent).toBe('subscribed: one');
    expect(server.log('subscribe', 'unsubscribe').sort()).toEqual(['subscribe a', 'subscribe b', 'unsubscribe a']);
  });

  it('is not called any more once it is gone', async () => {
    const heard = vi.fn();
    const Once = () => {
      bindings.usePipe('team', { message: heard });
      return null;
    };
    await show(<Once />);
    await settle(() => {
      flushSync(() => root.render(null));
      server.event('team', 'message', { text: 'late' });
    });
    expect(heard).not.toHaveBeenCalled();
  });

  it('is off for null', async () => {
    let publish: ((event: 'message', data: Events['message']) => Promise<void>) | undefined;
    const Off = () => {
      const pipe = bindings.usePipe(null, { message: () => undefined });
      publish = pipe.publish;
      return <p>{pipe.status}</p>;
    };
    await show(<Off />);
    expect([page.textContent, server.sockets.length]).toEqual(['idle', 0]);
    await expect(publish!('message', { text: 'hello' })).rejects.toMatchObject({ code: 'INVALID' });
  });

  it('publishes without a subscription where there are no handlers', async () => {
    const seen = new Set<unknown>();
    let publish: ((event: 'message', data: Events['message'], options?: { echo: boolean }) => Promise<void>) | undefined;
    const Sender = ({ at }: { at: number }) => {
      ({ publish } = bindings.usePipe('team'));
      seen.add(publish);
      return <p>{at}</p>;
    };
    await show(<Sender at={1} />);
    await show(<Sender at={2} />);
    await act(() => publish!('message', { text: 'hello' }, { echo: false }));
    expect(seen.size).toBe(1);
    expect(server.said).toEqual([
      expect.objectContaining({ type: 'publish', pipe: 'team', event: 'message', data: { text: 'hello' }, echo: false }),
    ]);
  });

  it('says that it was denied, and when it is not any more', async () => {
    server.refused.set('team', 'FORBIDDEN');
    await show(<Heard />);
    expect(page.textContent).toBe('denied FORBIDDEN: ');
    server.refused.clear();
    await settle(() => server.send({ type: 'system', event: 'grants_changed', pipes: {} }));
    expect(page.textContent).toBe('subscribed: ');
  });

  it('says that it was revoked, at once, and comes back when it is restored', async () => {
    await show(
      <>
        <Heard pipe="team" />
        <Heard pipe="lobby" />
      </>,
    );
    await act(() => server.send({ type: 'system', event: 'pipe_revoked', pipe: 'team' }));
    expect([page.textContent, revoked]).toEqual(['revoked REVOKED: subscribed: ', ['team']]);
    await settle(() => server.send({ type: 'system', event: 'pipe_restored', pipe: 'team' }));
    expect(page.textContent).toBe('subscribed: subscribed: ');
    await act(() => server.send({ type: 'system', event: 'all_pipes_revoked' }));
    expect([page.textContent, revoked]).toEqual(['revoked REVOKED: revoked REVOKED: ', ['team', 'all']]);
  });

  it('keeps the page when a handler throws', async () => {
    const Bad = () => {
      bindings.usePipe('team', {
        message: () => {
          throw new Error('mine');
        },
      });
      return null;
    };
    await show(
      <>
        <Bad />
        <Heard />
      </>,
    );
    await say('team', 'one');
    expect(page.textContent).toBe('subscribed: one');
  });
});

describe('usePresence', () => {
  function Who({ pipe = 'team' }: { pipe?: string | null }) {
    const { members, total } = bindings.usePresence(pipe);
    return <p>{`${total}: ${members.map(({ user }) => user).join(' ')}`}</p>;
  }

  it('shows who is there, and who comes and goes', async () => {
    server.members.set('team', [{ user: 'ann', connections: 1 }]);
    const first = renderToString(<Who />);
    await show(
      <StrictMode>
        <Who />
        <Who />
      </StrictMode>,
    );
    expect(first).toBe('<p>0: </p>');
    expect(page.textContent).toBe('1: ann1: ann');
    await act(() => server.send({ type: 'presence', pipe: 'team', joined: [{ user: 'bob', connections: 1 }], left: [] }));
    expect(page.textContent).toBe('2: ann bob2: ann bob');
    await act(() => server.send({ type: 'presence', pipe: 'team', joined: [], left: [{ user: 'ann', connections: 0 }] }));
    expect(page.textContent).toBe('1: bob1: bob');
    expect(server.log('subscribe', 'unsubscribe')).toEqual(['subscribe team']);
  });

  it('shows nobody of another pipe', async () => {
    server.members.set('a', [{ user: 'ann', connections: 1 }]);
    server.members.set('b', [{ user: 'bob', connections: 1 }]);
    await show(<Who pipe="a" />);
    let between: string | null = null;
    await settle(() => {
      flushSync(() => root.render(<Who pipe="b" />));
      between = page.textContent;
    });
    expect([between, page.textContent]).toEqual(['0: ', '1: bob']);
    await show(<Who pipe={null} />);
    expect(page.textContent).toBe('0: ');
  });
});

describe('usePush', () => {
  it('hears what is pushed, with the latest handler, until it is gone', async () => {
    const heard: string[] = [];
    const Notices = ({ mark }: { mark: string }) => {
      bindings.usePush('message', ({ data, sender }) => heard.push(`${mark} ${sender} ${data.text}`));
      return null;
    };
    const push = (text: string) => act(() => server.send({ type: 'push', event: 'message', data: { text }, sender: null, ts: 1 }));
    await show(
      <StrictMode>
        <Notices mark="a" />
      </StrictMode>,
    );
    await push('one');
    await show(
      <StrictMode>
        <Notices mark="b" />
      </StrictMode>,
    );
    await push('two');
    await show(null);
    await push('three');
    expect(heard).toEqual(['a null one', 'b null two']);
  });
});

describe('useAction', () => {
  let run: (args: number) => Promise<string>;
  function Caller() {
    const action = bindings.useAction<number, string>('double');
    run = action.run;
    return <p>{`${action.pending} ${action.result} ${(action.error as { code?: string } | undefined)?.code}`}</p>;
  }

  it('says what came of it', async () => {
    server.act = ({ args }) => ({ ok: true, result: `${Number(args) * 2}` });
    await show(<Caller />);
    expect(page.textContent).toBe('false undefined undefined');
    let answer: Promise<string>;
    await settle(() => (answer = run(4)));
    expect(await answer!).toBe('8');
    expect(page.textContent).toBe('false 8 undefined');
  });

  it('says that it is under way, and which error came', async () => {
    let finish: (() => void) | undefined;
    server.act = () => new Promise((resolve) => (finish = () => resolve({ ok: false, code: 'FORBIDDEN', error: 'Access denied' })));
    const unhandled = vi.fn();
    process.on('unhandledRejection', unhandled);
    await show(<Caller />);
    await settle(() => void run(1));
    expect(page.textContent).toBe('true undefined undefined');
    await settle(() => finish!());
    process.off('unhandledRejection', unhandled);
    expect(page.textContent).toBe('false undefined FORBIDDEN');
    expect(unhandled).not.toHaveBeenCalled();
  });

  it('shows the call that was made last, whichever is answered last', async () => {
    const finish: (() => void)[] = [];
    server.act = ({ args }) => new Promise((resolve) => finish.push(() => resolve({ ok: true, result: `result ${String(args)}` })));
    await show(<Caller />);
    await settle(() => void run(1));
    await settle(() => void run(2));
    await settle(() => finish[1]!());
    await settle(() => finish[0]!());
    expect(page.textContent).toBe('false result 2 undefined');
  });
});

describe('the connection', () => {
  function Shown() {
    return <p>{bindings.useStatus()}</p>;
  }

  it('lives as long as a provider is mounted', async () => {
    await show(
      <bindings.PipeProvider>
        <Shown />
      </bindings.PipeProvider>,
    );
    expect([page.textContent, server.open.length]).toEqual(['connected', 1]);
    await show(null);
    expect([bindings.client.status, server.open.length]).toEqual(['disconnected', 0]);
    await show(
      <bindings.PipeProvider>
        <Shown />
        <Heard />
      </bindings.PipeProvider>,
    );
    await say('team', 'one');
    expect([page.textContent, server.open.length]).toEqual(['connectedsubscribed: one', 1]);
  });

  it('is not brought back by a second provider once the server has sent it away', async () => {
    await show(
      <bindings.PipeProvider>
        <Shown />
      </bindings.PipeProvider>,
    );
    await act(() => server.open[0]!.close(4403));
    await show(
      <bindings.PipeProvider>
        <Shown />
        <bindings.PipeProvider />
      </bindings.PipeProvider>,
    );
    expect([page.textContent, server.sockets.length]).toEqual(['disconnected', 1]);
  });

  it('is that of another client where one is given', async () => {
    const other = new ServerDouble();
    const theirs = createPipeClient<Events>({ url: 'ws://other.example', WebSocket: other.WebSocket }).client;
    await show(
      <bindings.PipeProvider client={theirs}>
        <Heard />
      </bindings.PipeProvider>,
    );
    expect([server.sockets.length, other.log('subscribe')]).toEqual([0, ['subscribe team']]);
    await show(null);
    expect(other.open.length).toBe(0);
  });

  it('has its rights decided anew', async () => {
    await show(
      <bindings.PipeProvider>
        <Shown />
      </bindings.PipeProvider>,
    );
    await act(() => bindings.refreshPipeAuth());
    expect(server.said).toEqual([expect.objectContaining({ type: 'refresh' })]);
  });
});

describe('on a server', () => {
  it('renders without a connection, a timer or a listener, and the browser takes it up', async () => {
    const listens = vi.spyOn(globalThis, 'addEventListener');
    const timers = vi.spyOn(globalThis, 'setTimeout');
    function App() {
      const { status } = bindings.usePipe('team', { message: () => undefined });
      const { total } = bindings.usePresence('team');
      bindings.usePush('message', () => undefined);
      const { pending } = bindings.useAction('double');
      return (
        <bindings.PipeProvider>
          <p>{`${bindings.useStatus()} ${status} ${total} ${pending}`}</p>
        </bindings.PipeProvider>
      );
    }
    const served = document.createElement('div');
    served.innerHTML = renderToString(<App />);
    expect([served.textContent, server.sockets.length, listens.mock.calls.length, timers.mock.calls.length]).toEqual([
      'idle idle 0 false',
      0,
      0,
      0,
    ]);
    const complaints = vi.spyOn(console, 'error');
    let hydrated: Root;
    await settle(() => (hydrated = hydrateRoot(served, <App />)));
    expect([served.textContent, complaints.mock.calls]).toEqual(['connected subscribed 0 false', []]);
    await settle(() => flushSync(() => hydrated.unmount()));
  });
});
