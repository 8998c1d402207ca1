import { useEffect } from 'react';
import { Chat } from './Chat';
import { loadMe, useMe } from './me';
import { PipeProvider } from './pipes';
import { SignIn } from './SignIn';

export function App() {
  const me = useMe();
  useEffect(() => void loadMe(), []);
  if (me === undefined) return null;
  if (me === null) return <SignIn />;
  return (
    <PipeProvider>
      <Chat me={me} />
    </PipeProvider>
  );
}
